"""What detectors learn from: the objects of each image, as transformers' detectors take them in `labels`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .boxes import corner_boxes


def checked_labels(labels: Sequence[Mapping[str, Any]], batch_size: int, num_labels: int) -> list[dict]:
    """The labels of a batch, after it is certain that a detector can learn from them.

    Args:
        labels: For each image a dictionary with `class_labels` (n,), indices of classes, and `boxes` (n, 4), centre x,
            centre y, width and height as fractions of the image without its padding. Other entries are passed on.
        batch_size: Images of the batch.
        num_labels: Classes of the model.

    Returns:
        The same with `class_labels` in int64 and `boxes` in float32.

    Raises:
        ValueError: Something is missing or has another shape, a class does not exist, or a box has no area or is not
            given in fractions.
    """
    if not batch_size:
        raise ValueError("labels: there is nothing to learn from a batch without images.")
    if isinstance(labels, Mapping) or not isinstance(labels, Sequence) or len(labels) != batch_size:
        got = f"{len(labels)} of them" if isinstance(labels, (list, tuple)) else type(labels).__name__
        raise ValueError(f"labels: expected a list of dictionaries, one for each of {batch_size} images, got {got}.")
    return [_checked(f"labels[{i}]", objects, num_labels) for i, objects in enumerate(labels)]


def objects_in_pixels(labels: list[dict], sizes: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Classes (n,) and boxes (n, 4), left, top, right and bottom edge in pixels, of the objects of each image.

    Args:
        labels: As [`checked_labels`] returns them.
        sizes: (batch_size, 2), width and height of each image without padding.
    """
    return [
        (objects["class_labels"].to(sizes.device), corner_boxes(objects["boxes"].to(sizes), size))
        for objects, size in zip(labels, sizes, strict=True)
    ]


def masks_of_objects(labels: list[dict], pixel_mask: torch.Tensor) -> list[torch.Tensor]:
    """Masks (n, height, width) of the objects of each image, of the size of the padded images.

    Args:
        labels: As [`checked_labels`] returns them.
        pixel_mask: (batch_size, height, width), of the images.

    Raises:
        ValueError: There are none, or they have another shape.
    """
    masks = []
    for i, objects in enumerate(labels):
        expected = (len(objects["boxes"]), *pixel_mask.shape[1:])
        if objects.get("masks") is None:
            raise ValueError(
                f"labels[{i}]: `masks` is missing, and the model has mask heads. "
                f"Give {expected}, or load the model with with_masks=False."
            )
        masks.append(torch.as_tensor(objects["masks"]))
        if masks[i].shape != expected:
            raise ValueError(f"labels[{i}]['masks']: expected {expected}, got {tuple(masks[i].shape)}.")
    return masks


def _checked(name: str, objects: Mapping[str, Any], num_labels: int) -> dict:
    if missing := [key for key in ("class_labels", "boxes") if key not in objects]:
        raise ValueError(f"{name}: expected `class_labels` and `boxes`, {' and '.join(missing)} missing.")
    classes, boxes = torch.as_tensor(objects["class_labels"]), torch.as_tensor(objects["boxes"])
    if boxes.dtype in (torch.bfloat16, torch.float16):
        raise ValueError(f"{name}['boxes']: in {boxes.dtype}, which rounds them by pixels. Give float32.")
    boxes = boxes.float()
    if boxes.shape != (*classes.shape, 4) or classes.ndim != 1:
        raise ValueError(
            f"{name}: expected `class_labels` (n,) and `boxes` (n, 4), "
            f"got {tuple(classes.shape)} and {tuple(boxes.shape)}."
        )
    unknown = classes[(classes < 0) | (classes >= num_labels)]
    if len(unknown):
        raise ValueError(
            f"{name}['class_labels']: {unknown[0].item()} is no class of the model, "
            f"which has {num_labels}, from 0 to {num_labels - 1}."
        )
    in_image = ((boxes >= 0) & (boxes <= 1 + 1e-6)).all(dim=1)
    if not in_image.all():
        raise ValueError(
            f"{name}['boxes']: {boxes[~in_image][0].tolist()} is not a box in fractions of the image, "
            f"(centre x, centre y, width, height) between 0 and 1."
        )
    has_area = (boxes[:, 2:] > 0).all(dim=1)
    if not has_area.all():
        raise ValueError(f"{name}['boxes']: {boxes[~has_area][0].tolist()} has no area. Leave it out.")
    return {**objects, "class_labels": classes.long(), "boxes": boxes}
