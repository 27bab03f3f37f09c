"""Resizing and normalising images as the authors' test does, with the arithmetic of OpenCV."""

import torch

from ..resizing import resize_8_bit
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
