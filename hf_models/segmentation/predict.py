"""Segmentation as the authors test it: their resizing, whole or sliding windows, several scales and flips.

`pipeline("image-segmentation")` is simpler and a little different; here one image gets the scores that mmseg gives it.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import PreTrainedModel

from ..errors import InputError
from ..zoo.segmentation_recipe import SegmentationRecipe


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
    of the image. The multi-scale test of the authors is `scales=recipe.scales, flip=True`.

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
    # (height, width, 3) -> (3, height, width)
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    total = 0.0
    for scale in scales:
        pixel_values = prepare_image(pixels, recipe, scale).to(model.device, model.dtype)
        for flipped in (False, True)[: 1 + flip]:
            scores = _scores(model, pixel_values.flip(3) if flipped else pixel_values, recipe)
            scores = scores.flip(3) if flipped else scores
            scores = F.interpolate(scores, size=pixels.shape[1:], mode="bilinear", align_corners=recipe.align_corners)
            total = total + scores.softmax(dim=1)[0]
    return total / (len(scales) * (1 + flip))


def prepare_image(pixels: torch.Tensor, recipe: SegmentationRecipe, scale: float = 1.0) -> torch.Tensor:
    """Resize, in one step or two, and normalise.

    Args:
        pixels: (3, height, width) of 8 bits.
        recipe: The sizes, the mean and the standard deviation.
        scale: Factor on the sizes, which are then rounded down.

    Returns:
        (1, 3, height, width) in float32.
    """
    height, width = pixels.shape[1:]
    long_edge, short_edge = int(recipe.long_edge * scale), int(recipe.short_edge * scale)
    factor = min(long_edge / max(height, width), short_edge / min(height, width))
    height, width = (int(side * factor + 0.5) for side in (height, width))
    pixels = resize_8_bit(pixels, height, width)
    if divisor := recipe.size_divisor:
        pixels = resize_8_bit(pixels, -(-height // divisor) * divisor, -(-width // divisor) * divisor)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (recipe.mean, recipe.std))
    return ((pixels / 255 - mean) / std)[None]


def resize_8_bit(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear resize without smoothing, in the fixed-point arithmetic of OpenCV, and so equal to it bit by bit.

    A resize in floating point differs by up to two grey levels after two steps.

    Args:
        pixels: (3, height, width) of 8 bits.
        height: The new height in pixels; `width` likewise.
    """
    if pixels.shape[1:] == (height, width):
        return pixels
    left, right, left_weight, right_weight = _taps(pixels.shape[2], width)
    above, below, above_weight, below_weight = _taps(pixels.shape[1], height)
    pixels = pixels.int()
    rows = pixels[:, :, left] * left_weight + pixels[:, :, right] * right_weight  # 8 + 11 bits
    above, below = rows[:, above] >> 4, rows[:, below] >> 4
    result = (above * above_weight[:, None] >> 16) + (below * below_weight[:, None] >> 16)
    return ((result + 2) >> 2).clamp(0, 255).to(torch.uint8)


def _taps(size: int, new_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two neighbours of each new pixel along one axis, and their weights in units of 1 / 2048."""
    position = ((torch.arange(new_size, dtype=torch.float64) + 0.5) * (size / new_size) - 0.5).float()
    first = position.floor()
    fraction = position - first
    weights = ((weight * 2048).round().int() for weight in (1 - fraction, fraction))
    # at the border both are the pixel there, still with two weights: each product is rounded for itself
    first, second = (index.long().clamp(0, size - 1) for index in (first, first + 1))
    return first, second, *weights


def _scores(model: PreTrainedModel, pixel_values: torch.Tensor, recipe: SegmentationRecipe) -> torch.Tensor:
    """Class scores (1, num_labels, height, width) of a prepared image, from one look at it or from many windows."""
    if recipe.crop_size is None:
        return class_scores(model, pixel_values)
    total, count = 0.0, pixel_values.new_zeros(pixel_values.shape[2:], dtype=torch.float32)
    for rows in windows(pixel_values.shape[2], recipe.crop_size[0], recipe.stride[0]):
        for columns in windows(pixel_values.shape[3], recipe.crop_size[1], recipe.stride[1]):
            scores = class_scores(model, pixel_values[:, :, rows, columns])
            if isinstance(total, float):
                total = scores.new_zeros(*scores.shape[:2], *count.shape)
            total[:, :, rows, columns] += scores
            count[rows, columns] += 1
    return total / count


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
    outputs = model(pixel_values=pixel_values)
    if "class_queries_logits" in outputs:
        classes = outputs.class_queries_logits.float().softmax(dim=-1)[..., :-1]  # the last is "no object"
        # sigmoid at the resolution of the masks, then upsampling: the other order gives other edges
        masks = outputs.masks_queries_logits.float().sigmoid()
        scores = torch.einsum("bqc,bqhw->bchw", classes, masks)
    elif "logits" in outputs and outputs.logits.ndim == 4:
        scores = outputs.logits.float()
    else:
        found = ", ".join(f"{name} {tuple(value.shape)}" for name, value in outputs.items() if torch.is_tensor(value))
        raise InputError(f"{model.name_or_path}: gives no scores of pixels, but {found}. Choose a segmentation model.")
    if scores.shape[2:] == pixel_values.shape[2:]:
        return scores
    return F.interpolate(scores, size=pixel_values.shape[2:], mode="bilinear", align_corners=False)
