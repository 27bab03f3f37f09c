"""What each box or point is to find while a detector learns, and which of them it learns from."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .boxes import box_areas, pairwise_iou
from .roi_align import roi_align

BACKGROUND, UNDECIDED = -1, -2  # in the place of the index of an object


def assign_boxes(
    boxes: torch.Tensor, objects: torch.Tensor, found: float, missed: float, best_from: float | None = None
) -> torch.Tensor:
    """Assign boxes to objects by their overlap, as `MaxIoUAssigner` of mmdetection does.

    A box is to find the object that it overlaps most. The best boxes of an object are to find it in any case, even if
    they overlap another one more; of several such objects, the last.

    Args:
        boxes: (N, 4), anchors or regions.
        objects: (n, 4), the boxes of the objects, which have areas.
        found: Intersection over union from which on a box is to find an object.
        missed: Intersection over union below which it is background.
        best_from: Intersection over union from which on the best boxes of an object are to find it; `None` for no such
            rule.

    Returns:
        (N,), the index of an object, `BACKGROUND` or `UNDECIDED`.
    """
    assigned = torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    if len(boxes) == 0 or len(objects) == 0:
        return assigned
    overlaps = pairwise_iou(boxes, objects)  # (N, n)
    most, nearest = overlaps.max(dim=1)
    assigned[most >= missed] = UNDECIDED
    assigned = torch.where(most >= found, nearest, assigned)
    if best_from is not None:
        best = overlaps.amax(dim=0)
        is_best = (overlaps == best) & (best >= best_from)
        last = torch.arange(1, len(objects) + 1, device=boxes.device).mul(is_best).amax(dim=1) - 1  # -1 for none
        assigned = torch.where(last >= 0, last, assigned)
    return assigned


def sample(assigned: torch.Tensor, number: int, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw boxes to learn from, by PyTorch's generator of random numbers on the CPU.

    Args:
        assigned: (N,), see [`assign_boxes`].
        number: Boxes to draw, or all if there are fewer.
        share: Of boxes that are to find objects, at most. Background takes the places that these leave.

    Returns:
        Indices, in ascending order, of boxes that are to find objects, and of background.
    """
    finding = _draw(assigned >= 0, int(number * share))
    return finding, _draw(assigned == BACKGROUND, number - len(finding))


def _draw(candidates: torch.Tensor, number: int) -> torch.Tensor:
    """Indices of at most so many of the places (N,) that are true, in ascending order."""
    (places,) = candidates.nonzero(as_tuple=True)
    if len(places) <= number:
        return places
    return places[torch.randperm(len(places))[:number].sort().values.to(places.device)]


class Regions(NamedTuple):
    """Regions of a batch of images to learn from, R in all, image by image.

    Args:
        boxes: (R, 4).
        images: (R,), index of the image.
        assigned: (R,), index of the object in the image, or `BACKGROUND`.
        classes: (R,), class of the object, or the one after the last for the background.
        targets: (R, 4), box of the object.
        is_object: (R,), whether it is the box of an object and no proposal.
    """

    boxes: torch.Tensor
    images: torch.Tensor
    assigned: torch.Tensor
    classes: torch.Tensor
    targets: torch.Tensor
    is_object: torch.Tensor


def draw_regions(
    proposals: list[torch.Tensor],
    objects: list[tuple[torch.Tensor, torch.Tensor]],
    num_labels: int,
    number: int,
    found: float,
    best_matches: bool,
) -> Regions:
    """Draw regions to learn from; the boxes of the objects are proposals too.

    Args:
        proposals: (N, 4) of each image.
        objects: Classes (n,) and boxes (n, 4) of the objects of each image.
        num_labels: Number of classes.
        number: Regions to draw of each image, or all if there are fewer. At most a quarter are to find objects.
        found: Intersection over union from which on a region is to find an object, and below which it is background.
        best_matches: Whether the best regions of an object are to find it, even if they overlap another one more.
    """
    images = []
    for i, (boxes, (classes, targets)) in enumerate(zip(proposals, objects, strict=True)):
        assigned = assign_boxes(boxes, targets, found, found, found if best_matches else None)
        assigned = torch.cat((torch.arange(len(targets), device=assigned.device), assigned))
        drawn = torch.cat(sample(assigned, number, share=0.25))
        assigned = assigned[drawn]
        images.append(
            Regions(
                boxes=torch.cat((targets, boxes))[drawn],
                images=torch.full_like(drawn, i),
                assigned=assigned,
                # of the background, the index -1, it is what is added at the end
                classes=F.pad(classes, (0, 1), value=num_labels)[assigned],
                targets=F.pad(targets, (0, 0, 0, 1))[assigned],
                is_object=drawn < len(targets),
            )
        )
    return Regions(*map(torch.cat, zip(*images, strict=True)))


def mask_targets(masks: torch.Tensor, assigned: torch.Tensor, regions: torch.Tensor, side: int) -> torch.Tensor:
    """What a mask head is to draw in regions of an image.

    Args:
        masks: (n, height, width), of the objects, 1 inside and 0 outside.
        assigned: (R,), indices of the objects.
        regions: (R, 4), in pixels.
        side: Cells of the grid over a region, in each direction.

    Returns:
        (R, side, side), 1 in cells of which at least half lies in the object, and 0 elsewhere.
    """
    regions = torch.cat((assigned[:, None].to(regions), regions), dim=1)
    # (n, height, width) -> (n, 1, height, width); (R, 1, side, side) -> (R, side, side)
    shares = roi_align(masks[:, None].to(regions), regions, side, spatial_scale=1.0)[:, 0]
    return (shares >= 0.5).to(regions)


def assign_points(
    points: torch.Tensor, strides: torch.Tensor, objects: torch.Tensor, centre_radius: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Assign points to objects, as FCOS does (https://arxiv.org/abs/1904.01355, section 3).

    A point is to find an object that it lies in. Each level has the objects whose furthest edge is 4 to 8 strides away
    from the point; the finest level has those that are nearer too, the coarsest those that are further. Of several
    objects, it is the smallest.

    Args:
        points: (N, 2), x and y.
        strides: (N,), of the levels that the points are of; the least is that of the finest level.
        objects: (n, 4), the boxes of the objects.
        centre_radius: Strides around the centre of an object within which a point finds it; `None` for all of the box.

    Returns:
        (N,), the index of an object or `BACKGROUND`; and (N, 4), the distances from the point to the left, top, right
        and bottom edge of the object, arbitrary for the background.
    """
    if len(objects) == 0:
        return torch.full_like(strides, BACKGROUND, dtype=torch.long), points.new_zeros(len(points), 4)
    distances = _distances(points[:, None], objects)  # (N, n, 4)
    inside = objects
    if centre_radius is not None:
        centres = (objects[:, :2] + objects[:, 2:]) / 2
        reach = (strides * centre_radius)[:, None, None]
        inside = torch.cat(
            ((centres - reach).maximum(objects[:, :2]), (centres + reach).minimum(objects[:, 2:])), dim=2
        )
    is_inside = _distances(points[:, None], inside).amin(dim=2) > 0
    furthest = distances.amax(dim=2)
    least = torch.where(strides == strides.amin(), 0, 4 * strides)[:, None]
    most = torch.where(strides == strides.amax(), math.inf, 8 * strides)[:, None]
    fits = is_inside & (furthest >= least) & (furthest <= most)
    areas = torch.where(fits, box_areas(objects), math.inf)
    smallest, assigned = areas.min(dim=1)
    distances = distances.take_along_dim(assigned[:, None, None], dim=1)[:, 0]
    return torch.where(smallest < math.inf, assigned, BACKGROUND), distances


def _distances(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """From points (..., 2) to the left, top, right and bottom edges of boxes (..., 4): (..., 4)."""
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)
