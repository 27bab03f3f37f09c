"""Resizing images of 8 bits with the arithmetic of OpenCV, which mmdetection and mmsegmentation use."""

import torch


def resize_8_bit(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear resize without smoothing, in the fixed-point arithmetic of OpenCV, and so equal to it bit by bit.

    A resize in floating point differs by up to two grey levels after two steps. (Where it halves both sides, OpenCV
    takes the mean of four pixels; so does this.)

    Args:
        pixels: (3, height, width) of 8 bits.
        height: The new height in pixels; `width` likewise.
    """
    if pixels.shape[1:] == (height, width):
        return pixels
    left, right, left_weight, right_weight = _taps(pixels.shape[2], width)
    above, below, above_weight, below_weight = _taps(pixels.shape[1], height)

    def resized(rows: torch.Tensor) -> torch.Tensor:
        """Some rows at the new width, in units of 1 / 128: 8 + 11 bits, of which the last 4 are dropped."""
        band = pixels.index_select(1, rows)  # only the rows that are needed: of a large photo these are few
        sides = ((left, left_weight), (right, right_weight))
        return sum(band.index_select(2, columns).int() * weight for columns, weight in sides) >> 4

    result = (resized(above) * above_weight[:, None] >> 16) + (resized(below) * below_weight[:, None] >> 16)
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
