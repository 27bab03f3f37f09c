"""Detection checkpoints convert completely and compute what the originals computed."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForInstanceSegmentation, AutoModelForObjectDetection
from typer.testing import CliRunner

from hf_models import zoo
from hf_models.cli import app
from hf_models.conversion.plan import make_plan

from ..harness.detection_originals import (
    FIXTURES,
    MANIFESTS,
    golden,
    golden_checkpoint,
    in_strips,
    opened,
    shapes_of,
    small_checkpoint,
)
from ..harness.segmentation_tester import write_checkpoint

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


# --- the goldens, by public names alone


def command(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def convert_by_command(folder: Path, state: dict, config: dict, *options: str) -> Path:
    source, original = write_checkpoint(folder, state, config)
    command("convert", source, folder / "out", "--original-config", original, *options)
    return folder / "out"


def loaded(folder: Path, name: str):
    """The model of a golden, and its processor at the size of the golden's images."""
    long, short = golden(name)[0]["test_pipeline"]["img_scale"]
    processor = AutoImageProcessor.from_pretrained(folder, size={"shortest_edge": short, "longest_edge": long})
    return AutoModelForObjectDetection.from_pretrained(folder).eval(), processor


def check_detections(found: dict, boxes: torch.Tensor, labels: torch.Tensor) -> None:
    """Hold detections against the original's (N, 5) boxes with scores and (N,) labels."""
    assert torch.equal(found["labels"], labels)
    assert (found["boxes"] - boxes[:, :4]).abs().max() <= 0.01
    assert (found["scores"] - boxes[:, 4]).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["mask_rcnn_t_like", "dino_t_like"])
def test_golden(name, tmp_path):
    model, processor = loaded(convert_by_command(tmp_path, *golden_checkpoint(name)), name)
    tensors = golden(name)[1]
    for i in range(2):
        image = tensors[f"{i}.image"].numpy()
        inputs = processor(images=[image], return_tensors="pt")
        assert torch.equal(inputs["pixel_values"], tensors[f"{i}.pixel_values"])
        with torch.inference_mode():
            outputs = model(**inputs)
        (found,) = processor.post_process_object_detection(outputs, 0.0, [image.shape[:2]])
        check_detections(found, tensors[f"{i}.det_bboxes"], tensors[f"{i}.det_labels"])
        if f"{i}.masks" in tensors:
            (found,) = processor.post_process_instance_segmentation(
                outputs, 0.0, target_sizes=[image.shape[:2]], return_binary_maps=True
            )
            assert (found["segmentation"] != tensors[f"{i}.masks"].bool()).sum() <= 5


@pytest.mark.parametrize("name", ["mask_rcnn_t_like", "dino_t_like"])
def test_two_images_as_a_batch(name, tmp_path):
    model, processor = loaded(convert_by_command(tmp_path, *golden_checkpoint(name)), name)
    expected = load_file(FIXTURES / "det_batch.safetensors")
    images = [golden(name)[1][f"{i}.image"].numpy() for i in range(2)]
    inputs = processor(images=images, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], expected[f"det_{name}.pixel_values"])
    with torch.inference_mode():
        outputs = model(**inputs)
    sizes = [image.shape[:2] for image in images]
    for i, found in enumerate(processor.post_process_object_detection(outputs, 0.0, sizes)):
        check_detections(found, *(expected[f"det_{name}.{i}.{what}"] for what in ("det_bboxes", "det_labels")))
    if model.config.model_type == "backbone_rcnn":
        masks = processor.post_process_instance_segmentation(outputs, 0.0, target_sizes=sizes, return_binary_maps=True)
        for i, found in enumerate(masks):
            assert (found["segmentation"] != expected[f"det_{name}.{i}.masks"].bool()).sum() <= 5


def test_feed_forward_networks_in_strips_are_joined(tmp_path):
    """InternImage-G's, in any order: the model is that of the whole networks."""
    state, config = golden_checkpoint("dino_t_like")
    whole = convert_by_command(tmp_path, state, config)
    (tmp_path / "strips").mkdir()
    strips = in_strips(state, config)
    assert len(strips) > len(state)
    joined = convert_by_command(tmp_path / "strips", dict(reversed(strips.items())), config)
    before, after = (load_file(folder / "model.safetensors") for folder in (whole, joined))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    report = json.loads((joined / "conversion_report.json").read_text())
    network = "bbox_head.transformer.encoder.layers.0.ffns.0"
    assert report["written"]["encoder.layers.0.mlp.fc2.weight"] == " + ".join(
        f"{network}.fc2_{i}.weight" for i in range(4)
    )
    command("verify", joined, "--source", tmp_path / "strips" / "original.pth")


# --- small checkpoints, all the way

KINDS = [
    ("internimage", "mask_rcnn"),
    ("flash_internimage", "mask_rcnn"),
    ("flash_internimage", "cascade_masks"),
    ("replknet", "cascade_masks"),
    ("internimage", "cascade"),
    ("internimage", "dino"),
    ("internimage_h", "dino_strips"),
    ("flash_internimage", "dino"),
    ("smt", "mask_rcnn"),
    ("cb_internimage_h", "dino"),
]


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_small_checkpoint(family, kind, tmp_path):
    """Converted in shards, verified, loaded, pushed for show."""
    state, config = small_checkpoint(family, kind)
    state |= {"ema_" + name.replace(".", "_"): tensor for name, tensor in state.items() if name.startswith("neck.")}
    output = convert_by_command(tmp_path, state, config, "--max-shard-size", "300KB")
    report = json.loads((output / "conversion_report.json").read_text())
    assert len(report["files"]) > 1
    ema = {name for name in state if name.startswith("ema_")}
    assert report["dropped"].keys() == {"meta"} | ema | {name for name in state if "label_embedding" in name}
    assert all("running average" in report["dropped"][name] for name in ema)
    assert any(note.startswith("preprocessing is assumed: short side 800") for note in report["notes"])
    command("verify", output, "--source", tmp_path / "original.pth")

    model, info = AutoModelForObjectDetection.from_pretrained(output, output_loading_info=True)
    assert not any(info.values()) and model.config.architectures == [type(model).__name__]
    assert report["parameters"] == model.num_parameters()
    processor = AutoImageProcessor.from_pretrained(output, size={"shortest_edge": 64, "longest_edge": 96})
    image = Image.new("RGB", (60, 40), "teal")
    with torch.inference_mode():
        outputs = model.eval()(**processor(images=[image], return_tensors="pt"))
    assert outputs.boxes.shape == (1, model.config.max_detections, 4) and outputs.boxes.isfinite().all()
    assert (outputs.masks is not None) == (kind in ("mask_rcnn", "cascade_masks"))
    if outputs.masks is not None:
        assert AutoModelForInstanceSegmentation._model_mapping[type(model.config)] is type(model)
    assert "not one that the authors" in (output / "README.md").read_text()
    pushed = command("push", output, "--repo", "me/detector", "--dry-run")
    assert "image_processing_detection.py" in pushed and f"modeling_{model.config.model_type}.py" in pushed
