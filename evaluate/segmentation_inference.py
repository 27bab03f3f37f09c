"""Class scores for the pixels of an image, from models that return logits, as UperNet does."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch.nn import functional as F
from transformers import BaseImageProcessor, PreTrainedModel


@torch.inference_mode()
def semantic_scores(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    image: Image.Image,
    *,
    mode: str = "whole",
    crop: int = 512,
    stride: int = 341,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> torch.Tensor:
    """Scores of every class at every pixel: the mean of the softmax over scales and mirrored images.

    Args:
        mode: `"whole"` shows the model the whole image, `"slide"` overlapping windows of `crop` pixels every `stride`
            pixels, the scores of which are averaged.
        scales: Factors of the size that the processor resizes to.
        flip: Show each scale mirrored too.

    Returns:
        (num_labels, H, W), at the size of `image`.
    """
    pixel_values = processor(image, return_tensors="pt").pixel_values.to(model.device, model.dtype)
    predict = _whole if mode == "whole" else lambda model, pixels: _slide(model, pixels, crop, stride)
    total = 0
    for scale in scales:
        size = [round(side * scale) for side in pixel_values.shape[-2:]]
        scaled = pixel_values if scale == 1 else F.interpolate(pixel_values, size, mode="bilinear")
        for mirrored in (False, True) if flip else (False,):
            logits = predict(model, scaled.flip(-1) if mirrored else scaled)
            logits = logits.flip(-1) if mirrored else logits
            total = total + _resize(logits, image.size[::-1]).softmax(dim=1)
    return total[0] / (len(scales) * (1 + flip))


def _whole(model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """(1, 3, H, W) to logits (1, num_labels, H, W)."""
    return _resize(model(pixel_values=pixel_values).logits.float(), pixel_values.shape[-2:])


def _slide(model: PreTrainedModel, pixel_values: torch.Tensor, crop: int, stride: int) -> torch.Tensor:
    """As `_whole`, from windows; the last one of a row or column is shifted inwards."""
    height, width = pixel_values.shape[-2:]
    total, count = 0, torch.zeros(1, 1, height, width, device=pixel_values.device)
    for top in _starts(height, crop, stride):
        for left in _starts(width, crop, stride):
            window = (..., slice(top, top + crop), slice(left, left + crop))
            logits = _whole(model, pixel_values[window])
            right, bottom = width - left - logits.shape[-1], height - top - logits.shape[-2]
            total = total + F.pad(logits, (left, right, top, bottom))
            count[window] += 1
    return total / count


def _starts(side: int, crop: int, stride: int) -> list[int]:
    steps = max(side - crop + stride - 1, 0) // stride + 1
    return [max(min(step * stride, side - crop), 0) for step in range(steps)]


def _resize(scores: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)
