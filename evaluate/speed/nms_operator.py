"""Non-maximum suppression, and what could be run instead of it."""

import torch

from hf_models.nms import batched_nms, nms_reference

from .implementations import Implementation, Operator, Size

try:
    from torchvision.ops import batched_nms as torchvision_batched_nms
except (ImportError, RuntimeError):  # not installed, or built for another PyTorch
    torchvision_batched_nms = None

THRESHOLD = 0.7
SHAPES = {  # images, boxes, groups
    "boxes1000": (1, 1000, 1),
    "boxes5000": (1, 5000, 1),
    "classes5000": (1, 5000, 80),
}


def implementations(size: Size, dtype: torch.dtype, device: str) -> list[Implementation]:
    """Ours, and the peers that are installed, on the same random boxes of up to 100 pixels in an image of 800."""
    _, count, groups = size
    corner = torch.rand(count, 2, device=device) * 800
    boxes = torch.cat((corner, corner + torch.rand(count, 2, device=device) * 100), dim=1).to(dtype)
    inputs = boxes, torch.rand(count, device=device).to(dtype), torch.randint(groups, (count,), device=device)
    found = [
        Implementation("ours", _ours, inputs),
        Implementation("PyTorch reference", reference, inputs),
    ]
    if torchvision_batched_nms is not None:
        found.append(Implementation("torchvision", _torchvision, inputs))
    return found


def _ours(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    return batched_nms(boxes, scores, groups, THRESHOLD)


def reference(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """A group after the other."""
    kept = []
    for group in groups.unique():
        (members,) = (groups == group).nonzero(as_tuple=True)
        kept.append(members[nms_reference(boxes[members].float(), scores[members].float(), THRESHOLD)])
    kept = torch.cat(kept).sort().values
    return kept[scores[kept].argsort(descending=True, stable=True)]


def _torchvision(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    return torchvision_batched_nms(boxes.float(), scores.float(), groups, THRESHOLD)


NMS = Operator(
    kernel="detection-ops",
    shapes=SHAPES,
    size_format="{1}, {2}",
    size_title="boxes, groups",
    units=lambda size: size[1],  # boxes
    implementations=implementations,
    expected=lambda size: reference,
    gradients=0,
)
