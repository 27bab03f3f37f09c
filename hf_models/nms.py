"""Non-maximum suppression: of boxes that overlap, the one with the highest score stays."""

import torch

from .boxes import pairwise_iou
from .hub_kernels import get_function

try:
    from torchvision.ops import nms as torchvision_nms
except (ImportError, RuntimeError):  # not installed, or built for another PyTorch
    torchvision_nms = None


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Suppress every box that overlaps a better one that stays itself.

    A compiled kernel computes it where there is one (see `hf-models kernels status`), else torchvision, else the
    PyTorch reference. All of them keep the same boxes.

    Args:
        boxes: (N, 4), left, top, right and bottom edges.
        scores: (N,). Of equal scores, the first one is better.
        iou_threshold: The intersection over union above which a box is suppressed. Boxes without area, whose
            intersection over union with each other is not a number, leave each other alone.

    Returns:
        Indices of the boxes that stay, by descending score.

    Raises:
        ValueError: A tensor has another shape.
    """
    if boxes.shape != (*scores.shape, 4):
        raise ValueError(f"boxes: expected (N, 4) for scores (N,), got {tuple(boxes.shape)}, {tuple(scores.shape)}")
    boxes, scores = boxes.float(), scores.float()
    kernel = get_function("detection-ops", "nms", boxes.device.type, boxes, scores)
    return (kernel or torchvision_nms or nms_reference)(boxes, scores, iou_threshold)


def nms_reference(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """`nms` in PyTorch alone."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    # (N, N), whether a box (row) would suppress a worse one (column); in slices, as N x N floats take more memory
    suppresses = [pairwise_iou(rows, boxes) > iou_threshold for rows in boxes.split(1024)]
    suppresses = torch.cat(suppresses).triu(diagonal=1).cpu()  # one box after the other is no work for a GPU
    stays = torch.ones(len(boxes), dtype=torch.bool)
    for box in range(len(boxes)):
        if stays[box]:
            stays &= ~suppresses[box]
    return order[stays.to(order.device)]


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """`nms` in which only boxes of the same group suppress each other.

    Each group is treated by itself. To move the groups apart instead, and treat all at once, costs the coordinates of
    the last groups bits of their precision.

    Args:
        boxes: (N, 4).
        scores: (N,).
        groups: (N,), such as the class or the feature level of each box.
        iou_threshold: As for `nms`.

    Returns:
        Indices of the boxes that stay, by descending score.
    """
    kernel = get_function("detection-ops", "batched_nms", boxes.device.type, boxes, scores, groups)
    if kernel is not None:
        return kernel(boxes.float(), scores.float(), groups, iou_threshold)
    stays = torch.zeros_like(groups, dtype=torch.bool)
    for group in groups.unique():
        (members,) = (groups == group).nonzero(as_tuple=True)
        stays[members[nms(boxes[members], scores[members], iou_threshold)]] = True
    (kept,) = stays.nonzero(as_tuple=True)
    return kept[scores[kept].argsort(descending=True, stable=True)]
