"""Resizing and normalising images as the authors' test does, with the arithmetic of OpenCV."""

import torch

from ..zoo.segmentation_recipe import SegmentationRecipe


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
    rows = pixels[:, :, left].int() * left_weight + pixels[:, :, right].int() * right_weight  # 8 + 11 bits
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
