"""Detection checkpoints convert completely and compute what the originals computed."""

import json

import pytest
import torch

from hf_models import zoo
from hf_models.conversion.plan import make_plan

from ..harness.detection_originals import MANIFESTS, opened, shapes_of

INITIAL = {f"dino_4scale_cbinternimage_h_objects365_{classes}classes" for classes in (80, 20)}


def test_all_manifests_are_here():
    """Two files of LVIS and two of PASCAL VOC have the same names and shapes; two configs have no published file."""
    assert len(MANIFESTS) == 38
    published = {entry["published"] for entry in MANIFESTS.values()} - {None}
    assert set(zoo.list_models(task="object-detection")) == published | INITIAL


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_checkpoint_maps_exactly_onto_its_model(name, tmp_path):
    entry, config = MANIFESTS[name], tmp_path / "config.json"
    config.write_text(json.dumps(entry["config"]))
    plan = make_plan(opened(name, "mine.pth"), None, config)
    assert plan.key_map.sources | plan.key_map.dropped.keys() == shapes_of(name).keys()
    assert plan.key_map.origins.keys() == plan.expected.keys()
    assert plan.key_map.dropped.keys() <= {"bbox_head.label_embedding.weight"}
    dropped = sum(torch.Size(shapes_of(name)[key]).numel() for key in plan.key_map.dropped)
    parameters = sum(t.numel() for key, t in plan.expected.items() if key not in plan.buffers)
    assert parameters == entry["parameters"] - dropped
    if entry["published"]:
        # the authors' arguments and the zoo agree, also in what the weights do not show
        published = zoo.find_checkpoint(entry["published"])
        assert parameters == published.parameters and zoo.find_checkpoint(name) is published
        ours, theirs = (json.loads(c.to_json_string(use_diff=False)) for c in (plan.config, published.config()))
        for key in ("id2label", "label2id"):
            ours.pop(key, None), theirs.pop(key, None)
        ours["backbone_config"].pop("reparameterized", None), theirs["backbone_config"].pop("reparameterized", None)
        assert ours == theirs
