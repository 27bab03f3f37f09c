"""What is refused in a file of annotations: all that COCO's own code takes, and measures wrongly or crashes on."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from hf_models.errors import InputError

ROUNDING = 1  # by so many pixels boxes may leave their image
MAX_ID = 2**63
MAX_SIDE = 2**17  # of an image; none is so large


def check_objects(content: dict[str, Any], path: Path) -> None:
    """Refuse what is wrong with images, categories, and objects but for their masks.

    Args:
        content: Of the file; where it does not say whether an object is a crowd, it is made to say that it is none.
        path: The file.

    Raises:
        InputError: Something is missing, contradicts itself, or means something else to COCO's code.
    """
    images, categories, annotations = (_by_id(content, name, path) for name in ("images", "categories", "annotations"))
    if not images:
        raise InputError(f"{path}: no images. Nothing evaluated.")
    for image in images.values():
        if not all(_is_id(image.get(side)) and 0 < image[side] <= MAX_SIDE for side in ("width", "height")):
            raise InputError(f"{path}: image {image['id']} has no width and height. Add them, in pixels.")
    _check_names(images, "image", "file_name", path)
    used = {annotation.get("category_id") for annotation in annotations.values()}
    _check_names({number: of for number, of in categories.items() if number in used}, "category", "name", path)
    for number, annotation in annotations.items():
        called = f"{path}: annotation {number}"
        for what, entries in (("image", images), ("category", categories)):
            reference = annotation.get(f"{what}_id")
            if not (_is_id(reference) and reference in entries):
                raise InputError(f"{called}: the file has no {what} {reference}. Correct {what}_id.")
        if not (_is_number(annotation.get("area")) and 0 <= annotation["area"] <= MAX_SIDE**2):
            raise InputError(f"{called}: no area. Add it: pixels of the mask, or of the box where there are no masks.")
        if (crowd := annotation.get("iscrowd", 0)) not in (0, 1):
            raise InputError(f"{called}: iscrowd is {crowd}, 0 or 1 is wanted.")
        annotation["iscrowd"] = int(crowd)
        if annotation.get("ignore") and not annotation["iscrowd"]:
            raise InputError(f"{called}: COCO's metrics do not know `ignore`. Set iscrowd to 1, or leave it out.")
        _check_box(annotation.get("bbox"), images[annotation["image_id"]], called)


def check_masks(content: dict[str, Any], path: Path) -> None:
    """Refuse what is wrong with the masks of objects that [`check_objects`] found right.

    Raises:
        InputError: An object has no mask, or one that COCO's code draws wrongly.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for annotation in content["annotations"]:
        called, size = f"{path}: annotation {annotation['id']}", sizes[annotation["image_id"]]
        segmentation = annotation.get("segmentation")
        if not segmentation:
            raise InputError(f"{called}: no mask (segmentation). Pass --task boxes.")
        if isinstance(segmentation, dict):
            _check_rle(segmentation, size, called)
        elif isinstance(segmentation, list):
            for polygon in segmentation:
                _check_polygon(polygon, size, called)
        else:
            raise InputError(f"{called}: segmentation is neither a list of polygons nor a run-length encoding.")


def _by_id(content: dict[str, Any], name: str, path: Path) -> dict[int, dict[str, Any]]:
    entries = content.get(name)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: no list of {name}. Name a file such as COCO's instances_val2017.json.")
    found = {}
    for entry in entries:
        number = entry.get("id")
        if not _is_id(number):
            raise InputError(f"{path}: an id of its {name} is {number!r}, a whole number from 0 is wanted.")
        if found.setdefault(number, entry) is not entry:
            raise InputError(f"{path}: two of its {name} have the id {number}. Number them anew.")
    return found


def _check_names(entries: dict[int, dict[str, Any]], what: str, key: str, path: Path) -> None:
    names = Counter()
    for number, entry in entries.items():
        name = entry.get(key)
        if not isinstance(name, str) or not name:
            raise InputError(f"{path}: {what} {number} has no {key}. Add it.")
        names[name] += 1
        if names[name] > 1:
            raise InputError(f"{path}: {key} {name} is there twice. Make one {what} of the two.")


def _check_box(box: Any, image: dict[str, Any], called: str) -> None:
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)):
        raise InputError(f"{called}: no bbox of four numbers: left, top, width, height. Add it.")
    left, top, width, height = box
    if width < 0 or height < 0:
        raise InputError(f"{called}: its box is {width} x {height} pixels. Correct bbox: left, top, width, height.")
    right, bottom = left + width, top + height
    if min(left, top) < -ROUNDING or right > image["width"] + ROUNDING or bottom > image["height"] + ROUNDING:
        raise InputError(
            f"{called}: its box {box} leaves the image of {image['width']} x {image['height']} pixels. "
            "Correct bbox: left, top, width, height."
        )


def _check_polygon(polygon: Any, size: tuple[int, int], called: str) -> None:
    points = np.asarray(polygon) if isinstance(polygon, list) and all(map(_is_number, polygon)) else np.empty(0)
    if len(points) < 6 or len(points) % 2:
        raise InputError(
            f"{called}: a polygon of {len(points) / 2:g} points, at least 3 are wanted: [x1, y1, x2, y2, x3, y3, ...]."
        )
    height, width = size
    x, y = points[::2], points[1::2]
    # a little outside is cut off; far outside COCO's code draws until the memory is full
    if min(x.min() + width, y.min() + height) < 0 or x.max() > 2 * width or y.max() > 2 * height:
        raise InputError(f"{called}: its polygon leaves the image of {width} x {height} pixels. Correct segmentation.")


def _check_rle(rle: dict[str, Any], size: tuple[int, int], called: str) -> None:
    """Runs that do not fill the image are drawn as whatever was in the memory."""
    height, width = size
    if rle.get("size") != [height, width]:
        raise InputError(
            f"{called}: its mask has the size {rle.get('size')}, its image [{height}, {width}] (height, width). "
            "Encode the mask at the size of the image."
        )
    runs = rle.get("counts")
    if isinstance(runs, str):
        runs = _decompressed(runs)
    if not isinstance(runs, list) or not all(map(_is_id, runs)):
        raise InputError(f"{called}: its mask is no run-length encoding. Encode it again.")
    if sum(runs) != height * width:
        raise InputError(
            f"{called}: the runs of its mask have {sum(runs):,} pixels, its image {height * width:,}. Encode it again."
        )


def _decompressed(text: str) -> list[int] | None:
    """The runs of COCO's compressed encoding; `None` if `text` is none.

    A number is written in groups of 5 bits, the lowest first; from the fourth run on it is the difference from the run
    before the last.
    """
    runs, number, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # the last group, whose highest bit is the sign
            number -= (bits & 16) << shift - 4
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    return None if shift else runs


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_ID
