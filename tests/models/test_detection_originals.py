"""Cascade Mask R-CNN and FCOS: against what MMDetection computed, step by step and by public names alone."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForObjectDetection
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.modeling_backbone_rcnn import level_of

from ..harness.detection_originals import golden, golden_checkpoint
from ..harness.segmentation_tester import write_checkpoint

IMAGES = (0, 1)


def converted(name, folder):
    """A golden with the model that it becomes, and its image processor at the size of the golden's images."""
    about, tensors = golden(name)
    source, config = write_checkpoint(folder, *golden_checkpoint(name))
    result = CliRunner().invoke(app, ["convert", str(source), str(folder / "out"), "--original-config", str(config)])
    assert result.exit_code == 0, result.output
    longest, shortest = about["test_pipeline"]["img_scale"]
    size = {"shortest_edge": shortest, "longest_edge": longest}
    return SimpleNamespace(
        report=json.loads((folder / "out" / "conversion_report.json").read_text()),
        about=about,
        tensors=tensors,
        model=AutoModelForObjectDetection.from_pretrained(folder / "out").eval(),
        processor=AutoImageProcessor.from_pretrained(folder / "out", size=size),
    )


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    return converted("cascade", tmp_path_factory.mktemp("cascade"))


@pytest.fixture(scope="module")
def fcos(tmp_path_factory):
    return converted("fcos", tmp_path_factory.mktemp("fcos"))


@pytest.fixture(params=["cascade", "fcos"])
def original(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def steps(original, image):
    """What the original computed for one image."""
    return {name[2:]: tensor for name, tensor in original.tensors.items() if name.startswith(f"{image}.")}


def check(found, expected, tolerance=1e-5):
    """Equal within a part of the largest value."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def check_detections(found, boxes, labels):
    """Hold detections against the original's boxes (N, 5), with scores, and labels (N,)."""
    assert torch.equal(found["labels"], labels)
    torch.testing.assert_close(found["scores"], boxes[:, 4], rtol=0, atol=1e-4)
    torch.testing.assert_close(found["boxes"], boxes[:, :4], rtol=0, atol=0.01)


# --- by public names alone


@pytest.mark.parametrize("image", IMAGES)
def test_one_image(original, image):
    stored = steps(original, image)
    size = stored["image"].shape[:2]
    inputs = original.processor(images=[stored["image"].numpy()], return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], stored["pixel_values"])
    outputs = original.model(**inputs)
    (found,) = original.processor.post_process_object_detection(outputs, 0.0, [size])
    check_detections(found, stored["det_bboxes"], stored["det_labels"])
    if original.model.config.model_type == "backbone_rcnn":
        (found,) = original.processor.post_process_instance_segmentation(
            outputs, 0.0, target_sizes=[size], return_binary_maps=True
        )
        shape = (len(stored["det_labels"]), *size)
        masks = np.unpackbits(stored["masks_packed"].numpy(), count=np.prod(shape)).reshape(shape)
        assert (found["segmentation"].numpy() != masks).sum() <= 5


def test_two_images_as_a_batch(original):
    images = [original.tensors[f"{image}.image"].numpy() for image in IMAGES]
    outputs = original.model(**original.processor(images=images, return_tensors="pt"))
    sizes = [image.shape[:2] for image in images]
    for image, found in enumerate(original.processor.post_process_object_detection(outputs, 0.0, sizes)):
        stored = [original.tensors[f"batch.{image}.{name}"] for name in ("det_bboxes", "det_labels")]
        check_detections(found, *stored)


def test_the_report_tells_what_is_assumed_of_images(cascade, fcos):
    """RepLKNet-XL's are not normalised as all others are."""
    for original, assumed in (
        (cascade, "image_mean [0.5, 0.5, 0.5], image_std [0.5, 0.5, 0.5]"),
        (fcos, "ImageNet mean and deviation"),
    ):
        assert [note.endswith(assumed) for note in original.report["notes"]] == [True]


# --- each step of the original from its stored inputs


@pytest.mark.parametrize("image", IMAGES)
def test_features_and_pyramid(original, image):
    stored, backbone = steps(original, image), original.model.config.backbone_config
    seen = [f"feat{backbone.stage_names.index(name)}" for name in backbone.out_features]
    for found, name in zip(original.model.backbone(stored["pixel_values"]).feature_maps, seen, strict=True):
        check(found, stored[name])
    for level, found in enumerate(original.model.neck([stored[name] for name in seen])):
        check(found, stored[f"fpn{level}"])


@pytest.mark.parametrize("image", IMAGES)
def test_proposals(cascade, image):
    stored = steps(cascade, image)
    objectness, deltas = cascade.model.rpn([stored[f"fpn{level}"] for level in range(5)])
    for level in range(5):
        check(objectness[level], stored[f"rpn_cls{level}"])
        check(deltas[level], stored[f"rpn_reg{level}"])
    height, width, _ = cascade.about["images"][image]["img_shape"]
    (proposals,) = cascade.model.proposals(objectness, deltas, torch.tensor([[width, height]]).float())
    check(proposals, stored["proposals"][:, :4])


@pytest.mark.parametrize("image", IMAGES)
def test_stages(cascade, image):
    """All three from the regions that the original had for them; together they look at every level."""
    stored, seen = steps(cascade, image), set()
    levels = [stored[f"fpn{level}"] for level in range(4)]
    for stage, head in enumerate(cascade.model.box_heads):
        regions = stored[f"rois{stage}"][:, 1:] if stage else stored["proposals"][:, :4]
        seen |= set(level_of(regions, cascade.model.config.roi_finest_scale, 4).tolist())
        logits, deltas = head(cascade.model.pool(levels, regions, 7))
        check(logits, stored[f"cls_score{stage}"])
        check(deltas.flatten(1), stored[f"bbox_pred{stage}"])
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("image", IMAGES)
def test_head_of_fcos(fcos, image):
    stored = steps(fcos, image)
    for level, found in enumerate(fcos.model.head([stored[f"fpn{level}"] for level in range(5)])):
        for output, name in zip(found, ("cls", "centerness", "reg"), strict=True):
            check(output, stored[f"{name}{level}"])
