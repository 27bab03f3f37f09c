"""Images go into detectors, and boxes and masks come out, as in mmdetection; the fixtures are its own results."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers.utils import ModelOutput

from hf_models.detector_output import DetectorOutput
from hf_models.image_processing_detection import DetectionImageProcessor
from hf_models.mask_pasting import paste_mask, run_lengths

FIXTURES = Path(__file__).parents[1] / "fixtures" / "detection"
GOLDENS = ["det_mask_rcnn_t_like", "det_dino_t_like"]
SMALL = {"shortest_edge": 72, "longest_edge": 120}  # the size of the goldens


def read(name):
    return load_file(FIXTURES / f"{name}.safetensors"), json.loads((FIXTURES / f"{name}.json").read_text())


@pytest.mark.parametrize("name", GOLDENS)
def test_pixel_values_are_those_of_the_original_bit_for_bit(name):
    tensors, description = read(name)
    processor = DetectionImageProcessor(size=SMALL)
    for index, sizes in enumerate(description["images"]):
        inputs = processor(tensors[f"{index}.image"].numpy(), return_tensors="pt")
        assert torch.equal(inputs.pixel_values, tensors[f"{index}.pixel_values"])
        height, width, _ = sizes["img_shape"]
        assert inputs.pixel_mask[0, :height, :width].all() and inputs.pixel_mask.sum() == height * width


@pytest.mark.parametrize("name", GOLDENS)
def test_a_batch_is_padded_to_its_largest_image(name):
    tensors, _ = read(name)
    expected = load_file(FIXTURES / "det_batch.safetensors")[f"{name}.pixel_values"]
    images = [Image.fromarray(tensors[f"{index}.image"].numpy()) for index in range(2)]
    inputs = DetectionImageProcessor(size=SMALL)(images, return_tensors="pt")
    assert torch.equal(inputs.pixel_values, expected)
    assert inputs.pixel_mask.shape == (2, 128, 128)


def test_sizes_and_resized_images_are_those_of_opencv():
    tensors, description = read("det_ops")
    for height, width, *expected in tensors["resize.sizes"].tolist():
        image = np.zeros((height, width, 3), np.uint8)
        for size, wanted in (((800, 1333), expected[:2]), ((1000, 2000), expected[2:])):
            size = dict(zip(("shortest_edge", "longest_edge"), size, strict=True))
            inputs = DetectionImageProcessor(size=size, do_pad=False)(image, return_tensors="np")
            assert list(inputs.pixel_values.shape[2:]) == wanted
    plain = {"do_rescale": False, "do_normalize": False, "do_pad": False}
    for case in ("resize_down", "resize_up"):
        longest, shortest = description["cases"][case]["img_scale"]
        processor = DetectionImageProcessor(size={"shortest_edge": shortest, "longest_edge": longest}, **plain)
        resized = processor(tensors[f"{case}.image"].numpy(), return_tensors="pt").pixel_values[0]
        assert torch.equal(resized.permute(1, 2, 0), tensors[f"{case}.output"])  # (3, H, W) -> (H, W, 3)


def test_every_form_of_an_image_gives_the_same():
    processor = DetectionImageProcessor(size=SMALL)
    array = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    expected = processor(Image.fromarray(array), return_tensors="pt").pixel_values
    channels_first = torch.from_numpy(array).permute(2, 0, 1)
    transparent = Image.fromarray(array)
    transparent.putalpha(77)  # dropped, as for classifiers
    for image in (array, [array], channels_first, channels_first[None], transparent):
        assert torch.equal(processor(image, return_tensors="pt").pixel_values, expected)
    # floats are not rounded to grey levels after resizing
    floats = processor(array / 255, do_rescale=False, return_tensors="pt").pixel_values
    torch.testing.assert_close(floats, expected, atol=0.02, rtol=0)


def test_fixed_and_no_padding():
    image = Image.new("RGB", (53, 37), "white")
    processor = DetectionImageProcessor(size=SMALL)
    assert processor(image, do_pad=False, return_tensors="pt").pixel_mask.all()
    inputs = processor(image, pad_size={"height": 160, "width": 192}, return_tensors="pt")
    assert inputs.pixel_values.shape == (1, 3, 160, 192)
    with pytest.raises(ValueError, match=r"size: expected .*, got {'shortest_edge': 600}"):
        processor(image, size=600)


def output(*, with_masks=True):
    """Detections on two images: two and none. The better object covers the left half, the other everything."""
    boxes = torch.tensor([[[0, 0, 0.5, 1], [-0.1, 0, 1.2, 1], [0, 0, 0, 0]], [[0.0] * 4] * 3])
    masks = torch.ones(2, 3, 28, 28) if with_masks else None
    labels = torch.tensor([[4, 2, -1], [-1, -1, -1]])
    return DetectorOutput(scores=torch.tensor([[0.9, 0.6, 0], [0, 0, 0]]), labels=labels, boxes=boxes, masks=masks)


def test_boxes_end_at_the_edges_of_the_image():
    processor = DetectionImageProcessor()
    found, nothing = processor.post_process_object_detection(output(), 0.5, torch.tensor([[10, 40], [30, 20]]))
    assert found["labels"].tolist() == [4, 2] and found["boxes"].tolist() == [[0, 0, 20, 10], [0, 0, 40, 10]]
    assert nothing["boxes"].shape == (0, 4) and nothing["scores"].shape == nothing["labels"].shape == (0,)
    (found, _) = processor.post_process_object_detection(output(), 0.7)
    assert found["boxes"].tolist() == [[0, 0, 0.5, 1]], "without sizes, fractions of the image"
    for result in processor.post_process_object_detection(output(), 0):
        assert (result["labels"] >= 0).all(), "empty places are no detections"
    with pytest.raises(ValueError, match="one for each of 2 images, got 1"):
        processor.post_process_object_detection(output(), target_sizes=[(10, 40)])


def test_a_pipeline_hands_over_plain_outputs_and_a_user_sizes_as_floats():
    """Pipelines rebuild outputs as `ModelOutput`, in which `masks` is missing where the model gives none."""
    processor = DetectionImageProcessor()
    plain = ModelOutput({name: value for name, value in output().items() if name != "masks"})
    sizes = torch.tensor([[10.0, 40.0], [30.0, 20.0]])
    (found, _) = processor.post_process_object_detection(plain, target_sizes=sizes)
    assert len(found["boxes"]) == 2
    with pytest.raises(ValueError, match="boxes alone"):
        processor.post_process_instance_segmentation(plain, target_sizes=sizes)
    (masks, _) = processor.post_process_instance_segmentation(output(), target_sizes=sizes)
    assert masks["segmentation"].shape == (10, 40)


def test_masks_in_three_forms():
    process, sizes = DetectionImageProcessor().post_process_instance_segmentation, [(10, 40), (30, 20)]
    (found, nothing) = process(output(), target_sizes=sizes)
    assert found["segmentation"].dtype == torch.int32
    assert found["segmentation"].unique(dim=0).tolist() == [[0] * 20 + [1] * 20], "the better object is in front"
    first = {"id": 0, "label_id": 4, "was_fused": False, "score": 0.9}
    assert found["segments_info"] == [first, {"id": 1, "label_id": 2, "was_fused": False, "score": 0.6}]
    assert (nothing["segmentation"] == -1).all() and not nothing["segments_info"]

    maps, none = (result["segmentation"] for result in process(output(), target_sizes=sizes, return_binary_maps=True))
    assert maps.dtype == torch.bool and none.shape == (0, 30, 20)
    assert maps.flatten(1).sum(1).tolist() == [200, 400]
    runs, none = (result["segmentation"] for result in process(output(), target_sizes=sizes, return_coco_annotation=1))
    assert runs == [run_lengths(mask) for mask in maps] and none == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"with_masks": False}, "Use post_process_object_detection"),
        ({"target_sizes": None}, r"Give \(height, width\) of each image"),
        ({"return_binary_maps": True, "return_coco_annotation": True}, "only one"),
    ],
)
def test_what_gives_no_masks_says_why(arguments, message):
    outputs = output(with_masks=arguments.pop("with_masks", True))
    with pytest.raises(ValueError, match=message):
        DetectionImageProcessor().post_process_instance_segmentation(
            outputs, **{"target_sizes": [(10, 40), (30, 20)], **arguments}
        )


def test_masks_are_pasted_as_in_the_original():
    tensors, _ = read("det_ops")
    for index, box in enumerate(tensors["paste.boxes"]):
        mask = paste_mask(tensors["paste.masks"][index, 0], box, (48, 64))
        assert torch.equal(mask, tensors["paste.binary"][index])
    tensors, _ = read("det_mask_rcnn_t_like")
    for index in range(2):
        size, grids = tensors[f"{index}.image"].shape[:2], tensors[f"{index}.mask_logits0"].sigmoid()
        for mask, grid, box in zip(tensors[f"{index}.masks"], grids, tensors[f"{index}.det_bboxes"], strict=True):
            assert torch.equal(paste_mask(grid, box[:4], size), mask)


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [5, 5, 5, 5], [40, 30, 90, 70], [-9, -9, -5, -5]])
def test_boxes_without_area_or_outside_of_the_image(box):
    assert paste_mask(torch.zeros(28, 28), torch.tensor(box), (20, 30)).sum() == 0


def test_run_lengths_are_those_of_coco():
    coco = pytest.importorskip("pycocotools.mask")
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(9, 13, generator=generator) < share for share in (0, 0.1, 0.5, 0.9, 1)]
    for mask in (*masks, masks[2][:1], masks[2][:, :1], ~masks[2]):
        runs = run_lengths(mask)
        assert sum(runs["counts"]) == mask.numel()
        decoded = coco.decode(coco.frPyObjects(runs, *runs["size"]))
        np.testing.assert_array_equal(decoded, mask.numpy())
