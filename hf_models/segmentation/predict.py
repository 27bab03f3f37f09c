"""Segmentation as the authors test it: their resizing, whole or sliding windows, several scales and flips.

`pipeline("image-segmentation")` is simpler and a little different; here one image gets the scores that mmseg gives it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import PreTrainedModel, UperNetForSemanticSegmentation

from ..errors import InputError
from ..modeling_lean_upernet import upernet_scores
from ..modeling_segformer_head import SegformerHeadForSemanticSegmentation
from ..zoo.segmentation_recipe import SegmentationRecipe
from .preparation import prepare_image
from .strips import View, strips


@torch.inference_mode()
def semantic_labels(
    model: PreTrainedModel,
    image: Image.Image,
    recipe: SegmentationRecipe,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> torch.Tensor:
    """The most probable class at each pixel of an image: `semantic_scores(...).argmax(0)`, in less memory.

    It takes what the model's inputs need and a byte for each pixel: the scores are resized to the size of the image a
    few rows at a time. Only where all scores together take less than the scaled and mirrored views, they are kept
    instead of these.

    Args:
        model: See [`semantic_scores`], as for the other arguments.

    Returns:
        (height, width) in uint8, or in int16 where there are more than 256 classes, on the device of the model.

    Raises:
        InputError: The scores are not finite.
    """
    size, number = (image.height, image.width), len(scales) * (1 + flip)
    inputs = _inputs(image, recipe, scales)
    views = _views(model, inputs, recipe, flip)
    first = next(views)
    shape, views = (first.scores.shape[1], *size), chain([first], views)
    # what the other views take, as much for each pixel of their inputs as the first
    pixels = (1 + flip) * sum(pixel_values[0, 0].numel() for pixel_values in inputs) - inputs[0][0, 0].numel()
    if pixels * first.scores[0].numel() > inputs[0][0, 0].numel() * math.prod(shape):
        scores = _mean(views, number, size, recipe)

        def mean(rows: slice) -> torch.Tensor:
            return scores[:, rows]
    else:
        views = list(views)

        def mean(rows: slice) -> torch.Tensor:
            return sum(view.probabilities(rows, size, recipe.align_corners) for view in views).div_(number)

    integers = (torch.uint8, torch.int16, torch.int32)
    dtype = next(integer for integer in integers if shape[0] - 1 <= torch.iinfo(integer).max)
    labels = torch.empty(size, dtype=dtype, device=model.device)
    for rows in strips(shape):
        best, labels[rows] = mean(rows).max(dim=0)  # of equal ones the first
        if not best.isfinite().all():
            raise InputError(
                f"{model.name_or_path}: returns NaN or infinity in {str(model.dtype).removeprefix('torch.')}. "
                "Use another dtype, or convert or train it again."
            )
    return labels


@torch.inference_mode()
def semantic_scores(
    model: PreTrainedModel,
    image: Image.Image,
    recipe: SegmentationRecipe,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> torch.Tensor:
    """How probable each class is at each pixel of an image.

    The mean, over all scales and, with `flip`, the mirrored images too, of the softmax of the class scores at the size
    of the image. The multi-scale test of the authors is `scales=recipe.scales, flip=True`. For 150 classes the result
    takes 0.6 GB a megapixel; [`semantic_labels`] does without.

    Args:
        model: Any model of transformers with per-pixel `logits`, as UperNet, or with class and mask queries, as
            Mask2Former.
        image: An RGB image.
        recipe: How to prepare the image, and whether to slide.
        scales: Factors on the size that the recipe gives the image.
        flip: Whether to add the mirrored image at each scale.

    Returns:
        (num_labels, height, width) in float32, on the device of the model.
    """
    views = _views(model, _inputs(image, recipe, scales), recipe, flip)
    return _mean(views, len(scales) * (1 + flip), (image.height, image.width), recipe)


def _mean(views: Iterator[View], number: int, size: tuple[int, int], recipe: SegmentationRecipe) -> torch.Tensor:
    """The mean probabilities, (num_labels, height, width), of so many views, of which one exists at a time."""
    total = None
    for view in views:
        if total is None:
            total = view.scores.new_zeros(view.scores.shape[1], *size)
        for rows in strips(total.shape):
            total[:, rows] += view.probabilities(rows, size, recipe.align_corners)
    return total.div_(number)


def _inputs(image: Image.Image, recipe: SegmentationRecipe, scales: Sequence[float]) -> list[torch.Tensor]:
    """The image prepared at each scale."""
    # (height, width, 3) -> (3, height, width)
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    return [prepare_image(pixels, recipe, scale) for scale in scales]


def _views(
    model: PreTrainedModel, inputs: list[torch.Tensor], recipe: SegmentationRecipe, flip: bool
) -> Iterator[View]:
    """The image at each scale, then with `flip` mirrored, as the model sees it."""
    for pixel_values in inputs:
        pixel_values = pixel_values.to(model.device, model.dtype)
        yield _view(model, pixel_values, recipe)
        if flip:
            view = _view(model, pixel_values.flip(3), recipe)
            yield replace(view, scores=view.scores.flip(3))


def _view(model: PreTrainedModel, pixel_values: torch.Tensor, recipe: SegmentationRecipe) -> View:
    """What the model says of a prepared image, in one look at it or in many windows."""
    size = pixel_values.shape[2:]
    if recipe.crop_size is None:
        scores, align_corners = _last_scores(model, pixel_values)
        return View(scores, size, align_corners)
    total, count = None, pixel_values.new_zeros(size, dtype=torch.float32)
    for rows in windows(size[0], recipe.crop_size[0], recipe.stride[0]):
        for columns in windows(size[1], recipe.crop_size[1], recipe.stride[1]):
            scores = class_scores(model, pixel_values[:, :, rows, columns])
            if total is None:
                total = scores.new_zeros(*scores.shape[:2], *size)
            total[:, :, rows, columns] += scores
            count[rows, columns] += 1
    return View(total.div_(count), size)


def windows(size: int, crop: int, stride: int) -> list[slice]:
    """Windows of `crop` pixels that cover `size` pixels; the last is moved back inside, so that it overlaps more."""
    number = max(size - crop + stride - 1, 0) // stride + 1
    ends = [min(index * stride + crop, size) for index in range(number)]
    return [slice(max(end - crop, 0), end) for end in ends]


def class_scores(model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Class scores at the size of the input: logits, or for Mask2Former the masks weighted by their classes.

    Args:
        model: The model.
        pixel_values: (batch_size, 3, height, width).

    Returns:
        (batch_size, num_labels, height, width) in float32.

    Raises:
        InputError: The model's outputs are neither of them.
    """
    scores, align_corners = _last_scores(model, pixel_values)
    if scores.shape[2:] == pixel_values.shape[2:]:
        return scores
    return F.interpolate(scores, size=pixel_values.shape[2:], mode="bilinear", align_corners=align_corners)


def _last_scores(model: PreTrainedModel, pixel_values: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Class scores before they are resized to the size of the input, and whether corners are aligned then."""
    if isinstance(model, (UperNetForSemanticSegmentation, SegformerHeadForSemanticSegmentation)):
        # their forward resizes to the input, which takes 16 times the memory
        features = model.backbone.forward_with_filtered_kwargs(pixel_values, return_dict=True).feature_maps
        return upernet_scores(model.decode_head, features).float(), getattr(model.decode_head, "align_corners", False)
    outputs = model(pixel_values=pixel_values)
    if "class_queries_logits" in outputs:
        classes = outputs.class_queries_logits.float().softmax(dim=-1)[..., :-1]  # the last is "no object"
        # sigmoid at the resolution of the masks, then upsampling: the other order gives other edges
        masks = outputs.masks_queries_logits.float().sigmoid()
        return torch.einsum("bqc,bqhw->bchw", classes, masks), False
    if "logits" in outputs and outputs.logits.ndim == 4:
        return outputs.logits.float(), False
    found = ", ".join(f"{name} {tuple(value.shape)}" for name, value in outputs.items() if torch.is_tensor(value))
    raise InputError(f"{model.name_or_path}: gives no scores of pixels, but {found}. Choose a segmentation model.")
