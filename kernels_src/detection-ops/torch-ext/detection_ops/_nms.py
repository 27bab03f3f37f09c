"""Non-maximum suppression: of boxes that overlap, the one with the highest score stays."""

import torch

from ._ops import add_op_namespace_prefix, ops


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Suppress every box that overlaps a better one that stays itself.

    Args:
        boxes: (M, 4), left, top, right and bottom edges, which are compared in float32.
        scores: (M,). Of equal scores, the first one is better.
        iou_threshold: The intersection over union above which a box is suppressed. Boxes without area, whose
            intersection over union with each other is not a number, leave each other alone.

    Returns:
        Indices of the boxes that stay, by descending score.

    Raises:
        ValueError: A shape does not fit the others.
    """
    return batched_nms(
        boxes, scores, torch.zeros(boxes.shape[:1], dtype=torch.long, device=boxes.device), iou_threshold
    )


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """`nms` in which only boxes of the same group suppress each other.

    Args:
        boxes: (M, 4).
        scores: (M,).
        groups: (M,), whole numbers, such as the class or the feature level of each box.
        iou_threshold: As for `nms`.

    Returns:
        Indices of the boxes that stay, by descending score.

    Raises:
        ValueError: A shape does not fit the others.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes: expected (M, 4), got {tuple(boxes.shape)}")
    for name, tensor in (("scores", scores), ("groups", groups)):
        if tensor.shape != boxes.shape[:1]:
            raise ValueError(f"{name}: expected {tuple(boxes.shape[:1])}, got {tuple(tensor.shape)}")
    boxes = boxes.detach().float()
    order = scores.detach().argsort(descending=True, stable=True)
    return order[ops.suppress(boxes[order], groups.long()[order], iou_threshold)]


@torch.library.register_fake(add_op_namespace_prefix("suppress"))
def _suppress_fake(boxes, groups, iou_threshold):
    return boxes.new_empty(boxes.shape[0], dtype=torch.bool)
