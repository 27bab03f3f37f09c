"""COCO's annotations of an image as the labels that detectors learn from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

try:
    from pycocotools import mask as coco_mask
except ImportError:
    coco_mask = None


def coco_labels(
    annotation: Mapping[str, Any],
    size: tuple[int, int],
    new_size: tuple[int, int],
    padded_size: tuple[int, int],
    with_masks: bool,
) -> dict[str, np.ndarray]:
    """The labels of one image.

    Crowds are left out, and so are objects whose box has no area inside of the image, as by transformers' processors.

    Args:
        annotation: `image_id`, and `annotations`, a list of dictionaries as in COCO's files: `bbox` (left, top, width
            and height in pixels), `category_id`, which is taken for the index of a class, and for masks
            `segmentation`, polygons or run lengths; `iscrowd` may be missing.
        size: Height and width of the image.
        new_size: Height and width after it was resized.
        padded_size: Height and width after it was padded.
        with_masks: Whether masks are wanted.

    Returns:
        `class_labels` (n,) and `boxes` (n, 4), centre x, centre y, width and height as fractions of the image;
        `masks` (n, *padded_size), if they are wanted; `image_id` (1,), `orig_size` and `size`, height and width before
        and after resizing.

    Raises:
        ValueError: The annotation has another form.
        ImportError: Masks are wanted, and pycocotools is not installed.
    """
    try:
        objects = [one for one in annotation["annotations"] if not one.get("iscrowd")]
        edges = np.array([one["bbox"] for one in objects], dtype=np.float64).reshape(-1, 4)
        classes = np.array([one["category_id"] for one in objects], dtype=np.int64)
        image_id = np.array([annotation["image_id"]], dtype=np.int64)
        segmentations = [one["segmentation"] for one in objects] if with_masks else []
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"annotations: expected {{'image_id', 'annotations': [{{'bbox': [left, top, width, height], "
            f"'category_id'{', segmentation' if with_masks else ''}}}, ...]}} for each image ({error!r})."
        ) from None
    sides = np.array(size[::-1])
    low = (edges[:, :2] / sides).clip(0, 1)
    high = ((edges[:, :2] + edges[:, 2:]) / sides).clip(0, 1)
    boxes = np.concatenate(((low + high) / 2, high - low), axis=1).astype(np.float32)
    has_area = (boxes[:, 2:] > 0).all(axis=1)
    labels = {
        "image_id": image_id,
        "class_labels": classes[has_area],
        "boxes": boxes[has_area],
        "orig_size": np.array(size),
        "size": np.array(new_size),
    }
    if with_masks:
        masks = np.zeros((has_area.sum(), *padded_size), dtype=np.uint8)
        for mask, index in zip(masks, has_area.nonzero()[0], strict=True):
            mask[: new_size[0], : new_size[1]] = _resized(coco_pixels(segmentations[index], size), new_size)
        labels["masks"] = masks
    return labels


def coco_pixels(segmentation: list | dict, size: tuple[int, int]) -> np.ndarray:
    """The pixels (height, width), 1 or 0, of polygons or run lengths, compressed or not, in an image of a size.

    Raises:
        ValueError: They are those of an image of another size.
        ImportError: pycocotools is not installed.
    """
    if coco_mask is None:
        raise ImportError("pycocotools: not installed, needed for masks. Run `pip install pycocotools`.")
    if isinstance(segmentation, list) or isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *size)
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(segmentation)
    pixels = coco_mask.decode(segmentation)
    if pixels.shape != size:
        raise ValueError(f"segmentation: expected a mask of {size}, the image's height and width, got {pixels.shape}.")
    return pixels


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width) -> a size, by the nearest pixels, as mmdetection does it."""
    return F.interpolate(torch.from_numpy(mask)[None, None], size=size, mode="nearest")[0, 0].numpy()
