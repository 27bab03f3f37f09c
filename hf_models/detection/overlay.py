"""Draws detections over their image: masks, boxes, and at each box a plate with its class and score."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from transformers import PreTrainedConfig

from ..zoo.segmentation_labels import Colour, palette
from .predict import Detection

OPACITY = 0.45  # of masks
Rectangle = tuple[int, int, int, int]  # left, top, right and bottom; the last two lie outside


def class_colours(config: PreTrainedConfig) -> dict[str, Colour]:
    """Colour of each class that a config names, by this name."""
    names = [config.id2label[index] for index in range(config.num_labels)]
    return dict(zip(names, palette(names), strict=True))


def draw_detections(image: Image.Image, detections: Sequence[Detection], colours: dict[str, Colour]) -> Image.Image:
    """A copy of an image with its detections; lines and letters are as large as suits the image.

    Args:
        image: An RGB image.
        detections: The best first, which is drawn over the others.
        colours: Colour of each class, by its name; see [`class_colours`].
    """
    side = (image.width * image.height) ** 0.5
    line, font = max(round(side / 300), 1), ImageFont.load_default(max(side / 40, 12))
    frames = [_inside(detection.box, image.size) for detection in detections]
    pixels = np.array(image)
    for (left, top, right, bottom), detection in reversed(list(zip(frames, detections, strict=True))):
        if (mask := detection.mask) is not None:
            window = slice(max(top - 1, 0), bottom + 1), slice(max(left - 1, 0), right + 1)
            _paint(pixels[window], mask[window].numpy(), colours[detection.label], line)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for (left, top, right, bottom), detection in reversed(list(zip(frames, detections, strict=True))):
        for colour, rim in (("white", 1), (colours[detection.label], 0)):  # the rim shows on any background
            draw.rectangle(
                (left - rim, top - rim, right - 1 + rim, bottom - 1 + rim), outline=colour, width=line + 2 * rim
            )
    plates: list[Rectangle] = []
    for frame, detection in zip(frames, detections, strict=True):
        text = _shortened(f"{detection.label} {detection.score:.0%}", font, image.width - 2 * line)
        size = (int(font.getlength(text)) + 1 + 2 * line, sum(font.getmetrics()))
        plate = left, top, right, bottom = _place(size, frame, plates, image.size)
        plates.append(plate)
        colour = colours[detection.label]
        draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        draw.text((left + line, top), text, fill="black" if _is_light(colour) else "white", font=font)
    return picture


def _paint(pixels: np.ndarray, mask: np.ndarray, colour: Colour, line: int) -> None:
    """Tint those of the pixels (height, width, 3) that are in a mask (height, width), and draw its edge, in place."""
    shades = np.arange(256)[:, None] * (1 - OPACITY) + np.multiply(colour, OPACITY)  # (256, 3): old shade -> new one
    for channel, new in enumerate(shades.round().astype(np.uint8).T):
        values = pixels[..., channel]
        values[mask] = new[values[mask]]
    middle, before, after = slice(line, -line), slice(None, -2 * line), slice(2 * line, None)
    edge = mask.copy()
    edge[middle, middle] &= ~(mask[before, middle] & mask[after, middle] & mask[middle, before] & mask[middle, after])
    pixels[edge] = colour


def _inside(box: Sequence[float], size: tuple[int, int]) -> Rectangle:
    """The pixels of a box that are in an image of this width and height, at least one."""
    left, top, right, bottom = (round(edge) for edge in box)
    left, top = (min(max(edge, 0), side - 1) for edge, side in zip((left, top), size, strict=True))
    return left, top, max(min(right, size[0]), left + 1), max(min(bottom, size[1]), top + 1)


def _shortened(text: str, font: ImageFont.ImageFont, width: int) -> str:
    """As much of a text as is not wider than so many pixels."""
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text


def _place(size: tuple[int, int], frame: Rectangle, taken: list[Rectangle], image: tuple[int, int]) -> Rectangle:
    """Where a plate of this width and height goes: at the frame, inside the image, off the others if there is room."""
    places = [(x, y, x + size[0], y + size[1]) for x, y in _corners(size, frame, image)]
    return min(places, key=lambda place: sum(_common(place, other) for other in taken))  # of equal ones the first


def _corners(size: tuple[int, int], frame: Rectangle, image: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Left and top edge of where a plate could go, the best first: above the frame, inside from its top, below."""
    left, top, right, bottom = frame
    for y in (top - size[1], *range(top, bottom, size[1]), bottom):
        for x in (left, right - size[0]):
            yield tuple(max(min(edge, side - own), 0) for edge, own, side in zip((x, y), size, image, strict=True))


def _common(one: Rectangle, other: Rectangle) -> int:
    """The number of pixels that two rectangles have in common."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in range(2))
    return max(width, 0) * max(height, 0)


def _is_light(colour: Colour) -> bool:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140
