"""COCO's annotations become labels, as transformers' processors make them but for the size of the images."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DetrImageProcessorPil

from hf_models import coco_labels as module
from hf_models.coco_labels import coco_labels
from hf_models.image_processing_detection import DetectionImageProcessor

SIZE = {"shortest_edge": 48, "longest_edge": 96}
OBJECTS = [
    {
        "bbox": [10.0, 4.0, 20.0, 10.0],
        "category_id": 3,
        "area": 200.0,
        "segmentation": [[10, 4, 30, 4, 30, 14, 10, 14]],
    },
    {"bbox": [0.0, 0.0, 40.0, 30.0], "category_id": 0, "area": 9.0, "iscrowd": 1, "segmentation": {"counts": []}},
    {"bbox": [35.0, 20.0, 12.0, 10.0], "category_id": 1, "area": 50.0, "segmentation": [[35, 20, 40, 20, 40, 30]]},
    {"bbox": [12.0, 9.0, 0.0, 5.0], "category_id": 2, "area": 0.0, "segmentation": [[12, 9, 12, 12, 12, 14]]},
]
ANNOTATION = {"image_id": 7, "annotations": OBJECTS}


def image(width=40, height=30):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_labels_are_those_of_transformers():
    """Without padding: with it, transformers' boxes are fractions of the padded image, and ours are not."""
    ours = DetectionImageProcessor(size=SIZE)(image(), annotations=ANNOTATION, return_tensors="pt").labels[0]
    theirs = DetrImageProcessorPil(size=SIZE, do_pad=False)(image(), annotations=ANNOTATION, return_tensors="pt")
    theirs = theirs.labels[0]
    assert ours["class_labels"].tolist() == theirs["class_labels"].tolist() == [3, 1]
    torch.testing.assert_close(ours["boxes"], theirs["boxes"])
    for name in ("image_id", "orig_size", "size"):
        assert torch.equal(ours[name], theirs[name])
    assert "masks" not in ours


def test_boxes_are_fractions_of_the_image_without_its_padding():
    processor = DetectionImageProcessor(size=SIZE)
    annotations = [ANNOTATION, {"image_id": 8, "annotations": []}]
    inputs = processor([image(), image(90, 30)], annotations=annotations, return_tensors="pt")
    assert inputs.pixel_values.shape == (2, 3, 64, 96) and inputs.pixel_mask[0].sum() == 48 * 64
    alone = processor(image(), annotations=ANNOTATION, return_tensors="pt")
    torch.testing.assert_close(inputs.labels[0]["boxes"], alone.labels[0]["boxes"])
    torch.testing.assert_close(inputs.labels[0]["boxes"][0], torch.tensor([0.5, 0.3, 0.5, 1 / 3]))
    theirs = DetrImageProcessorPil(size=SIZE)(
        [image(), image(90, 30)], annotations=annotations, return_tensors="pt"
    ).labels[0]["boxes"]
    padded, size = torch.tensor([96.0, 48.0]).repeat(2), torch.tensor([64.0, 48.0]).repeat(2)
    torch.testing.assert_close(inputs.labels[0]["boxes"] * size, theirs * padded)
    assert inputs.labels[1]["boxes"].shape == (0, 4) and inputs.labels[1]["class_labels"].shape == (0,)


def test_masks_have_the_size_of_the_padded_images():
    mask = pytest.importorskip("pycocotools.mask")
    runs = mask.frPyObjects(OBJECTS[0]["segmentation"], 30, 40)[0]
    plain = mask.decode(runs)
    counts = np.diff(np.flatnonzero(np.diff(plain.T.ravel(), prepend=0, append=-1)), prepend=0).tolist()
    forms = [OBJECTS[0]["segmentation"], runs, {"size": [30, 40], "counts": counts}]
    forms.append({"size": [30, 40], "counts": runs["counts"].decode()})
    objects = [OBJECTS[0] | {"segmentation": form} for form in forms]
    inputs = DetectionImageProcessor(size=SIZE)(
        [image(), image(90, 30)],
        annotations=[{"image_id": 1, "annotations": objects}, {"image_id": 2, "annotations": []}],
        return_segmentation_masks=True,
        return_tensors="pt",
    )
    masks = inputs.labels[0]["masks"]
    assert masks.shape == (4, 64, 96) and inputs.labels[1]["masks"].shape == (0, 64, 96)
    rows, columns = np.arange(48) * 30 // 48, np.arange(64) * 40 // 64
    for found in masks.numpy():
        np.testing.assert_array_equal(found[:48, :64], plain[rows][:, columns])
        assert not found[48:].any() and not found[:, 64:].any()


@pytest.mark.parametrize(
    "objects",
    [
        {"image_id": 1},
        {"annotations": []},
        {"image_id": 1, "annotations": [{"bbox": [1, 2, 3], "category_id": 0}]},
        {"image_id": 1, "annotations": [{"bbox": [1, 2, 3, 4]}]},
        "file.json",
    ],
)
def test_other_forms_are_refused(objects):
    with pytest.raises(
        ValueError, match=r"annotations: expected \{'image_id', 'annotations': .* for each image"
    ) as error:
        DetectionImageProcessor(size=SIZE)([image()], annotations=[objects])
    assert "\n" not in str(error.value)


def test_what_does_not_fit_is_refused(monkeypatch):
    processor = DetectionImageProcessor(size=SIZE)
    with pytest.raises(ValueError, match="annotations: expected one for each of 2 images, got 1"):
        processor([image(), image()], annotations=[ANNOTATION])
    masks = {"annotations": ANNOTATION, "return_segmentation_masks": True}
    larger = {"annotations": [OBJECTS[0] | {"segmentation": {"size": [40, 40], "counts": [1600]}}], "image_id": 1}
    with pytest.raises(ValueError, match=r"segmentation: expected a mask of \(30, 40\).* got \(40, 40\)"):
        coco_labels(larger, (30, 40), (48, 64), (64, 64), with_masks=True)
    monkeypatch.setattr(module, "coco_mask", None)
    with pytest.raises(ImportError, match="pip install pycocotools"):
        processor(image(), **masks)
    assert len(processor(image(), annotations=ANNOTATION).labels[0]["boxes"]) == 2, "boxes do not need it"
