"""The camera backbones of driving networks: `hf-models convert FILE OUT --part img_backbone`."""

import json

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoImageProcessor
from typer.testing import CliRunner

from hf_models import zoo
from hf_models.cli import app
from hf_models.conversion.backbones.camera import PART
from hf_models.conversion.convert import _image_processor
from hf_models.conversion.plan import make_plan
from hf_models.model_cards import render_card
from hf_models.modeling_internimage import InternImageBackbone

from ..harness.conversion_tester import original_state, read_manifest, write_original
from ..harness.detection_originals import opened, small_checkpoint
from ..harness.segmentation_tester import write_checkpoint

DRIVING = zoo.list_models(task="image-feature-extraction")
LIKE = "mask_rcnn_internimage_s_fpn_3x_coco"  # what the first of them was trained from
PREFIXES = [f"{PART}.", f"backbone.{PART}."]


def command(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def line_of(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    return line


def driving(state: dict, prefix: str) -> dict:
    """The tensors of a backbone and of a neck as a file of mmdet3d has them, with other parts around them."""
    around = prefix.removesuffix(f"{PART}.")
    named = {name.replace("backbone.", prefix): value for name, value in state.items() if name.startswith("backbone.")}
    named |= {f"{around}img_{name}": value for name, value in state.items() if name.startswith("neck.")}
    return named | {
        "pts_bbox_head.code_weights": torch.ones(10),
        "pts_bbox_head.transformer.level_embeds": torch.ones(4),
    }


@pytest.fixture(scope="module")
def detector():
    return small_checkpoint("internimage", "mask_rcnn")


def convert(folder, state, config, *options):
    folder.mkdir()
    source, original = write_checkpoint(folder, state, config)
    command("convert", source, folder / "out", "--original-config", original, *options)
    return folder / "out"


@pytest.mark.parametrize("prefix", PREFIXES)
def test_features_are_those_of_the_same_weights_in_a_detector(prefix, detector, tmp_path):
    state, config = detector
    section = {"img_backbone": config["backbone"] | {"out_indices": [1, 2, 3]}, "img_neck": {"type": "FPN"}}
    nested = {"backbone_cfg": {"type": "IPMEncoder", **section}} if prefix != PREFIXES[0] else section
    around = driving(state, prefix)
    output = convert(tmp_path / "driving", around, {"model": {"type": "Driving", **nested}}, "--part", PART)
    command("verify", output, "--source", tmp_path / "driving" / "original.pth")
    report = json.loads((output / "conversion_report.json").read_text())
    others = {name for name in around if not name.startswith(prefix)}
    assert report["part"] == PART and report["dropped"].keys() == others | {"meta"}
    assert {report["dropped"][name] for name in others} == {
        f"outside of {prefix}*: no model here has such a neck, BEV encoder or head"
    }
    assert report["notes"] == ["preprocessing is assumed: images keep their size, ImageNet mean and deviation"]

    inside = convert(tmp_path / "detector", state, config, "--part", "backbone")
    cameras = torch.randn(6, 3, 64, 96)
    found = {}
    for folder in (output, inside):
        backbone, info = InternImageBackbone.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values())
        with torch.inference_mode():
            maps = backbone.eval()(cameras).feature_maps
        found[folder] = dict(zip(backbone.out_features, maps, strict=True))
    assert list(found[output]) == ["stage2", "stage3", "stage4"]
    assert [tuple(m.shape[-2:]) for m in found[output].values()] == [(8, 12), (4, 6), (2, 3)]  # strides 8, 16, 32
    assert all(torch.equal(feature_map, found[inside][name]) for name, feature_map in found[output].items())


def test_weights_are_those_of_the_same_classifier(tmp_path):
    """Every value of the backbone, from a classifier's file whose names got a prefix."""
    manifest = read_manifest("internimage_tiny_l")
    (tmp_path / "classifier").mkdir()
    source, original = write_original(tmp_path / "classifier", manifest)
    command("convert", source, tmp_path / "classifier" / "out", "--original-config", original)
    state = {f"{PART}.{name}": value for name, value in original_state("internimage_tiny_l").items()}
    kept = {name: value for name, value in state.items() if not name.startswith((f"{PART}.conv_head", f"{PART}.head"))}
    assert len(kept) < len(state)
    config = manifest["config"]
    output = convert(tmp_path / "driving", kept, config, "--part", PART)
    inputs = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        alone = InternImageBackbone.from_pretrained(output).eval()(inputs).feature_maps
        whole = InternImageBackbone.from_pretrained(
            tmp_path / "classifier" / "out", out_features=["stage1", "stage2", "stage3", "stage4"]
        )
        expected = whole.eval()(inputs).feature_maps
    assert all(torch.equal(*pair) for pair in zip(alone, expected, strict=True))


@pytest.mark.parametrize("name", DRIVING)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_published_files_map_exactly(name, prefix):
    """Names and shapes of InternImage-S in a detector of COCO, as a driving network has them."""
    checkpoint, published = opened(LIKE, f"{name}.pth"), zoo.find_checkpoint(name)
    checkpoint.tensors = driving(checkpoint.tensors, prefix)
    plan = make_plan(checkpoint, name, None, PART)
    assert plan.model_class is InternImageBackbone and plan.as_published
    assert plan.key_map.origins.keys() == plan.expected.keys()
    assert sum(t.numel() for key, t in plan.expected.items() if key not in plan.buffers) == published.parameters
    first = 2 if name.startswith("bevformer") else 1
    assert plan.config.out_features == [f"stage{i}" for i in range(first, 5)]
    processor = _image_processor(plan)
    cameras = [torch.zeros(3, 90, 160, dtype=torch.uint8)] * 6
    assert processor(cameras, return_tensors="pt").pixel_values.shape == (6, 3, 90, 160)
    assert f"--name {name} --part {PART}`." in published.how_to_convert()


def test_cards_state_licence_and_terms():
    assert [zoo.find_checkpoint(name).license for name in DRIVING] == ["apache-2.0", "gpl-3.0", "apache-2.0"]
    for name in DRIVING:
        published = zoo.find_checkpoint(name)
        card = ModelCard(render_card(published, published.config()))
        assert card.data.license == published.license and card.data.pipeline_tag == "image-feature-extraction"
        assert "commercial use" in card.text and f"states `{published.license}`" in card.text
        assert "none for the backbone" in card.text and published.notes[0] in card.text
        assert ("has to do so under GPL-3.0" in card.text) == (published.license == "gpl-3.0")


def test_what_is_not_there_is_one_line(detector, tmp_path):
    state, config = detector
    source, original = write_checkpoint(tmp_path, state, config)
    options = "--original-config", original
    line = line_of("convert", source, tmp_path / "out", *options, "--part", PART)
    assert line.startswith(f"{source}: has no img_backbone of ") and "or pass --part backbone for that of" in line
    line = line_of("convert", source, tmp_path / "out", *options, "--part", "img_neck")
    assert line == "--part must be backbone or img_backbone, got img_neck."

    torch.save(driving(state, PREFIXES[0]), source)
    for part in ((), ("--part", "backbone")):
        line = line_of("convert", source, tmp_path / "out", *options, *part)
        assert line == (
            f"{source}: a driving network, of which only the backbone can be converted. Pass --part img_backbone."
        )
    original.write_text(json.dumps(config["backbone"] | {"out_indices": [1, 4]}))
    line = line_of("convert", source, tmp_path / "out", *options, "--part", PART)
    assert "out_indices=[1, 4] is not supported, only [0, 1, 2, 3] or the last of them are." in line
    line = line_of("convert", source, tmp_path / "out", "--name", DRIVING[0], "--part", PART)
    assert "looks different" in line and not (tmp_path / "out").exists()


def test_saved_processor_keeps_the_size_of_camera_images(detector, tmp_path):
    state, config = detector
    output = convert(tmp_path / "driving", driving(state, PREFIXES[0]), config["backbone"], "--part", PART)
    processor = AutoImageProcessor.from_pretrained(output)
    assert processor(torch.zeros(3, 90, 160, dtype=torch.uint8), return_tensors="pt").pixel_values.shape[2:] == (
        90,
        160,
    )
