"""The image processor of converted Mask2Former models: what the loss gets, and what pipelines show."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, Mask2FormerImageProcessorPil, pipeline
from transformers.pipelines.image_segmentation import ImageSegmentationPipeline

from hf_models.zoo.segmentation import stock_image_processor
from hf_models.zoo.segmentation_recipe import SegmentationRecipe

from ..harness.hub_tester import tiny_folder, tiny_model


@pytest.fixture
def processor():
    return stock_image_processor(SegmentationRecipe(short_edge=32, long_edge=128), "mask2former")


def batch(processor, **kwargs):
    """Two images of different sizes; of the first map a quarter is to be ignored."""
    images = [Image.fromarray(np.full((32, width, 3), 90, np.uint8)) for width in (32, 64)]
    maps = [np.zeros((32, width), np.uint8) for width in (32, 64)]
    maps[0][16:] = 1
    maps[0][:16, :16] = 255
    return processor(images, segmentation_maps=maps, return_tensors="pt", **kwargs)


def test_padding_and_ignored_pixels_belong_to_no_class(processor):
    inputs = batch(processor)
    assert inputs["pixel_values"].shape == (2, 3, 32, 64)
    assert inputs["class_labels"][0].tolist() == [0, 1]
    masks = inputs["mask_labels"][0]
    assert masks.shape == (2, 32, 64) and set(masks.unique().tolist()) == {0, 1}
    assert masks.sum((1, 2)).tolist() == [16 * 16, 16 * 32]
    assert inputs["mask_labels"][1].sum() == 32 * 64


def test_the_loss_is_that_of_masks_without_padding(processor):
    """The stock processor gives targets of 255 here, and another loss."""
    model = tiny_model("mask2former").train()

    def loss(mask_labels, inputs):
        torch.manual_seed(0)  # points are drawn
        return model(**{**inputs, "mask_labels": mask_labels}).loss.item()

    inputs = batch(processor)
    by_hand = [torch.nn.functional.pad(inputs["mask_labels"][0][..., :32], (0, 32)), inputs["mask_labels"][1]]
    stock = batch(Mask2FormerImageProcessorPil(**{k: v for k, v in processor.to_dict().items() if k != "auto_map"}))
    assert stock["mask_labels"][0].max() == 255
    expected = loss(by_hand, inputs)
    assert loss(inputs["mask_labels"], inputs) == expected
    assert abs(loss(stock["mask_labels"], inputs) - expected) > 1


def test_maps_that_count_from_one(processor):
    """With `do_reduce_labels` 0 is ignored, and so is what is 255 already."""
    inputs = batch(processor, do_reduce_labels=True)
    assert [labels.tolist() for labels in inputs["class_labels"]] == [[0], []]
    assert inputs["mask_labels"][0].sum() == 16 * 32


def test_pipelines_show_classes(tmp_path):
    """By default, and wholly: a panoptic map needs no threshold to paint all pixels with one segment."""
    folder = tiny_folder(tmp_path, "mask2former")
    assert (folder / "image_processing_mask2former.py").is_file()
    segment = pipeline("image-segmentation", model=str(folder))
    assert isinstance(segment, ImageSegmentationPipeline)
    photo = Image.effect_noise((48, 40), 64).convert("RGB")
    found = segment(photo)
    assert [part["score"] for part in found] == [None] * len(found), "of classes, not of objects"
    covered = sum((np.asarray(part["mask"]) > 0).astype(int) for part in found)
    assert covered.shape == (40, 48) and (covered == 1).all()
    assert [part["label"] for part in segment(photo, subtask="semantic")] == [part["label"] for part in found]
    for subtask in ("panoptic", "instance"):
        with pytest.raises(ValueError, match=f"Subtask {subtask} is not supported"):
            segment(photo, subtask=subtask)
    assert not hasattr(AutoImageProcessor.from_pretrained(folder), "post_process_instance_segmentation")
