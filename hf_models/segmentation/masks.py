"""Masks: the class of each pixel, whatever form an image file gives it."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError, reason
from ..inference.images import FORMATS
from ..zoo.segmentation_labels import LABEL_SETS, Colour, class_colours, voc_colour

IGNORED = 255  # the class of pixels that do not count
FACTORS = {"1": 255, "2": 85, "4": 17}  # bits of a grey pixel -> how many of 255 shades lie between two of its values
AS_GREY = "Save the class numbers as 8-bit greyscale."


def read_mask(
    file: Path | bytes, num_labels: int, reduce_zero_label: bool = False, name: str | None = None
) -> np.ndarray:
    """Read the classes of an image's pixels.

    A mask means the same before and after a tool that shrinks files without loss, which may turn 8-bit greyscale into
    a palette of greys or into greyscale of fewer bits. So the classes are

    - in greyscale of 8 or more bits, the values;
    - in greyscale of 1, 2 or 4 bits, the stored values, or the shades from 0 to 255 that they are displayed as,
      whichever are labels. If both are, the file is refused;
    - with a palette of greys alone, the greys;
    - with a palette of colours, such as PASCAL VOC's, the indices. If the colours are those of a data set that is
      known here, but each at another index, then a tool has renumbered them, and the file is refused.

    Args:
        file: A path, or the content of a file.
        num_labels: Number of classes, at most 255.
        reduce_zero_label: The file holds 0 where nothing is labelled, and the classes from 1; otherwise the classes
            from 0, and `IGNORED`.
        name: What errors call the file; by default its path, if there is one.

    Returns:
        (height, width) in uint8: classes from 0, and `IGNORED` where nothing is labelled. It is turned as the EXIF
        data of the file say.

    Raises:
        InputError: The file cannot be read, has several channels, holds other labels, or does not say which it means.
    """
    name = name or (file if isinstance(file, Path) else "mask")
    try:
        with Image.open(BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
            codec, _, _, form = image.tile[0]
            image = ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow's formats raise anything where a file is damaged
        raise InputError(f"{name}: cannot be read completely ({reason(error)}). Fetch the file again.") from None
    if "jpeg" in (codec, image.info.get("compression")):
        raise InputError(f"{name}: a JPEG file, which does not keep class numbers. Save masks as PNG.")
    if image.mode == "F" or len(image.getbands()) > 1:
        raise InputError(f"{name}: mode {image.mode}, a mask has one channel of class numbers.")
    form = form if isinstance(form, tuple) else (form,)
    readings = _palette_readings(image, name) if image.mode == "P" else _grey_readings(image, codec, form, name)
    first, last = (1, num_labels) if reduce_zero_label else (0, num_labels - 1)
    ignored = 0 if reduce_zero_label else IGNORED
    outside = [mask[(mask != ignored) & ((mask < first) | (mask > last))] for mask in readings]
    possible = [mask for mask, wrong in zip(readings, outside, strict=True) if not wrong.size]
    if not possible:
        labels = f"0..{last} (0 = ignored)" if reduce_zero_label else f"0..{last} (255 = ignored)"
        raise InputError(f"{name}: label {outside[0][0]} outside {labels}.")
    if len(possible) == 2:
        (one, *_), (other, *_) = (mask[possible[0] != possible[1]] for mask in possible)
        raise InputError(f"{name}: {one} or {other} may be meant, a stored value or its shade of grey. {AS_GREY}")
    (mask,) = possible
    return np.where(mask == ignored, IGNORED, mask - first).astype(np.uint8)


def _grey_readings(image: Image.Image, codec: str, form: tuple, name: str | Path) -> list[np.ndarray]:
    """What the values of a greyscale image may be, in 32 bits: one array, or two that differ.

    Args:
        image: As Pillow loads it: with few bits as shades from 0 to 255 or as booleans.
        codec: Pillow's name for what decodes the file.
        form: How Pillow describes the pixels in the file, such as `("L;4",)`.
    """
    mask = np.asarray(image).astype(np.int32)
    if codec in ("ppm", "ppm_plain") and len(form) > 1:  # the file states its largest value
        return [(mask * (form[1] / (255 if form[1] <= 255 else 65535))).round().astype(np.int32)]
    kind, _, packing = next((part for part in form if isinstance(part, str)), "").partition(";")
    if kind not in ("1", "L"):
        return [mask]
    if "I" in packing:
        raise InputError(f"{name}: 0 is white in it, and some tools read its numbers from the other end. {AS_GREY}")
    bits = "1" if kind == "1" else packing[:1]
    if bits not in FACTORS:
        return [mask]
    values = mask if bits == "1" else mask // FACTORS[bits]
    return _different(values, values * FACTORS[bits])


def _palette_readings(image: Image.Image, name: str | Path) -> list[np.ndarray]:
    """What the values of an image with a palette may be; see [`_grey_readings`]."""
    indices = np.asarray(image).astype(np.int32)
    palette = np.array(image.getpalette("RGB"), np.int32).reshape(-1, 3)
    used = np.unique(indices)
    if used[-1] >= len(palette):
        raise InputError(f"{name}: index {used[-1]} is beyond its palette of {len(palette)} colours. {AS_GREY}")
    if (palette == palette[:, :1]).all():
        greys = palette[:, 0]
        # the shades of few bits are rather a way to display the indices: tools write them as greyscale
        displayed = any(np.array_equal(greys[used], used * factor) for factor in FACTORS.values())
        return _different(indices, greys[indices]) if displayed else [greys[indices]]
    colours = {int(index): tuple(palette[index].tolist()) for index in used if palette[index].any()}
    known = [
        [voc_colour(index) for index in range(256)],
        *(list(class_colours(names).values()) for names in LABEL_SETS),
    ]
    if not any(_in_order(colours, order) for order in known):
        for order in (order for order in known if set(colours.values()) <= set(order)):
            places = {index: order.index(colour) for index, colour in colours.items()}
            index = next(index for index, place in places.items() if place != index)
            raise InputError(
                f"{name}: its palette was renumbered: {index} has the colour of {places[index]}. {AS_GREY}"
            )
    return [indices]


def _different(one: np.ndarray, other: np.ndarray) -> list[np.ndarray]:
    return [one] if np.array_equal(one, other) else [one, other]


def _in_order(colours: dict[int, Colour], order: list[Colour]) -> bool:
    """Whether each index has the colour at its place, counted from 0, or from 1 where 0 is ignored."""
    return any(
        all(0 <= index - first < len(order) and order[index - first] == colour for index, colour in colours.items())
        for first in (0, 1)
    )
