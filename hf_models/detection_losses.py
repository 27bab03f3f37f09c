"""Losses of detectors, one for each box or point, and what a sum of them is divided by."""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F

from .boxes import box_areas

RARE = -math.log(99)  # the logit of 1 %, which a class is to start with: else the background would be all of the loss
SMALLEST = 1e-6  # of areas and overlaps that are divided by, or whose logarithm is taken


def focal_loss(logits: torch.Tensor, targets: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0) -> torch.Tensor:
    """Cross entropy in which what is right already counts little (https://arxiv.org/abs/1708.02002).

    Args:
        logits: Any shape.
        targets: The same shape, 1 where the logit is to be high and 0 elsewhere.
        alpha: Weight of the former, against 1 - alpha of the latter.
        gamma: The larger, the less counts what is right.

    Returns:
        The same shape.
    """
    wrong = (targets - logits.sigmoid()).abs()
    weight = (alpha * targets + (1 - alpha) * (1 - targets)) * wrong**gamma
    return weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def iou_loss(boxes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Minus the logarithm of the overlap (https://arxiv.org/abs/1608.01471): (N, 4), (N, 4) -> (N,)."""
    intersection, union = _overlap(boxes, targets)
    return -(intersection / union).clamp(min=SMALLEST).log()


def giou_loss(boxes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 - generalised intersection over union (https://arxiv.org/abs/1902.09630): (N, 4), (N, 4) -> (N,)."""
    intersection, union = _overlap(boxes, targets)
    low, high = boxes[:, :2].minimum(targets[:, :2]), boxes[:, 2:].maximum(targets[:, 2:])
    hull = _area(low, high).clamp(min=SMALLEST)
    return 1 - intersection / union + (hull - union) / hull


def _overlap(boxes: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Areas (N,) of the intersection and of the union of each box (N, 4) and its target (N, 4)."""
    low, high = boxes[:, :2].maximum(targets[:, :2]), boxes[:, 2:].minimum(targets[:, 2:])
    intersection = _area(low, high)
    return intersection, (box_areas(boxes) + box_areas(targets) - intersection).clamp(min=SMALLEST)


def _area(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Of rectangles between two corners (N, 2) each, 0 where they are not in this order: (N,)."""
    width, height = (high - low).clamp(min=0).unbind(dim=1)
    return width * height


def mean_over_processes(count: torch.Tensor, least: float = 1.0) -> torch.Tensor:
    """What a sum of losses is divided by, the same in all processes of a training.

    They average their gradients, and so several processes learn what one would from all of their images.

    Args:
        count: (), as a process counts it, such as the boxes that it has drawn.
        least: What is divided by at least.
    """
    # who evaluates may do it in one process alone, and would wait for the others
    if torch.is_grad_enabled() and dist.is_available() and dist.is_initialized():
        count = count.clone()
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    return count.clamp(min=least)
