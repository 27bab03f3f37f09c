"""Boxes as (left, top, right, bottom) in pixels, whose right and bottom edges are exclusive: width = right - left."""

import math

import torch

LARGEST_STEP = abs(math.log(16 / 1000))  # of one decoding: a side grows or shrinks by 62.5 at most


def image_sizes(pixel_mask: torch.Tensor) -> torch.Tensor:
    """Width and height (batch_size, 2), as floats, of images that (batch_size, height, width) is not 0 at."""
    return torch.stack([pixel_mask.any(dim=dim).sum(dim=1) for dim in (1, 2)], dim=1).float()


def corner_boxes(boxes: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """The edges in pixels of boxes (..., 4) that are given as in DETR.

    Args:
        boxes: (..., 4), centre x, centre y, width and height as fractions of an image.
        size: (..., 2), width and height of the image in pixels.
    """
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1) * torch.cat((size, size), dim=-1)


def decode_deltas(boxes: torch.Tensor, deltas: torch.Tensor, stds: tuple[float, ...] = (1, 1, 1, 1)) -> torch.Tensor:
    """Move and resize boxes by what a network predicts (https://arxiv.org/abs/1311.2524, appendix C).

    Args:
        boxes: (..., 4).
        deltas: (..., 4), normalised (dx, dy, dw, dh): steps of the centre in widths and heights of the box, and
            logarithms of the factors on its width and height. Broadcast with `boxes`.
        stds: What (dx, dy, dw, dh) were divided by for the network to predict.

    Returns:
        (..., 4).
    """
    deltas = deltas * deltas.new_tensor(stds)
    centre, size = (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]
    centre = centre + size * deltas[..., :2]
    size = size * deltas[..., 2:].clamp(-LARGEST_STEP, LARGEST_STEP).exp()
    return torch.cat((centre - size * 0.5, centre + size * 0.5), dim=-1)


def encode_deltas(boxes: torch.Tensor, targets: torch.Tensor, stds: tuple[float, ...] = (1, 1, 1, 1)) -> torch.Tensor:
    """What [`decode_deltas`] makes targets (..., 4) of boxes (..., 4) with: (..., 4)."""
    size, target_size = boxes[..., 2:] - boxes[..., :2], targets[..., 2:] - targets[..., :2]
    steps = (targets[..., :2] + targets[..., 2:] - boxes[..., :2] - boxes[..., 2:]) * 0.5 / size
    return torch.cat((steps, (target_size / size).log()), dim=-1) / boxes.new_tensor(stds)


def clip_boxes(boxes: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Clip boxes (..., 4) to an image of a size (..., 2), which is its width and height."""
    return boxes.clamp(min=0).minimum(torch.cat((size, size), dim=-1))


def box_areas(boxes: torch.Tensor) -> torch.Tensor:
    """(..., 4) -> (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every box (N, 4) with every other box (M, 4): (N, M); NaN where neither has area."""
    left, top, right, bottom = boxes[..., None].unbind(dim=1)  # (N, 1) each
    width = right.minimum(others[:, 2]) - left.maximum(others[:, 0])  # (N, M)
    height = bottom.minimum(others[:, 3]) - top.maximum(others[:, 1])
    intersection = width.clamp(min=0) * height.clamp(min=0)
    return intersection / (box_areas(boxes)[:, None] + box_areas(others) - intersection)
