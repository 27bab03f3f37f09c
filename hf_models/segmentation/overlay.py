"""Draws a segmentation over its image, with a legend."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError
from ..inference.device import choose_device
from ..inference.files import replacing
from ..inference.images import check_picture, read_image
from ..zoo.segmentation_labels import Colour, palette
from .load import load_segmenter
from .predict import semantic_labels

ROW, MARGIN, SWATCH = 20, 8, 14  # pixels of the legend
SHOWN = 0.001  # share of the pixels from which on a class is named: less is written as 0.0 %


def segment_image(
    image: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    alpha: float = 0.5,
    multi_scale: bool = False,
    device: str | None = None,
) -> list[dict[str, float | str]]:
    """Segment an image file and write the picture of it.

    Args:
        image: Path of the image.
        model: Folder or Hub id of a segmentation model.
        out: File to write, of a format that Pillow knows by its name; it appears complete or not at all.
        alpha: Opacity of the colours: 0 shows the image alone, 1 the colours alone.
        multi_scale: Whether to average over the scales of the model's recipe and over mirrored images.
        device: "cpu" or "cuda"; by default the GPU where there is one.

    Returns:
        The classes by descending share of the pixels, as `{"label": str, "share": float}`.

    Raises:
        InputError: The image cannot be used, `model` cannot be loaded, or `out` cannot be written.
    """
    out = check_picture(out)
    if not 0 <= alpha <= 1:
        raise InputError(f"--alpha must lie in [0, 1], got {alpha}.")
    picture = read_image(image)
    device = choose_device(device)
    segmenter, recipe = load_segmenter(model)
    segmenter.to(device)
    scales = recipe.scales if multi_scale else (1.0,)
    classes = semantic_labels(segmenter, picture, recipe, scales=scales, flip=multi_scale).cpu()
    names = [segmenter.config.id2label[index] for index in range(segmenter.config.num_labels)]
    colours = palette(names)
    shares = classes.flatten().bincount(minlength=len(names)) / classes.numel()
    found = [index for index in shares.argsort(descending=True, stable=True).tolist() if shares[index] > 0]
    entries = [(names[index], colours[index], shares[index].item()) for index in found]
    with replacing(out) as beside:
        add_legend(draw_overlay(picture, classes, colours, alpha), entries).save(beside)
    return [{"label": name, "share": share} for name, _, share in entries]


def draw_overlay(image: Image.Image, classes: torch.Tensor, colours: list[Colour], alpha: float) -> Image.Image:
    """Blend an image with the colours of its classes.

    Args:
        image: An RGB image.
        classes: Index of each pixel's class (height, width), of any type of integers.
        colours: Colour of each class.
        alpha: Opacity of the colours.
    """
    coloured = np.array(colours, dtype=np.uint8)[classes.numpy()]  # (height, width) -> (height, width, 3)
    return Image.blend(image, Image.fromarray(coloured), alpha)


def add_legend(image: Image.Image, entries: list[tuple[str, Colour, float]]) -> Image.Image:
    """Put a column at the right of an image: colour, name and share of the pixels of each class, down to `SHOWN`."""
    font = ImageFont.load_default()
    entries = [entry for entry in entries if entry[2] >= SHOWN] or entries[:1]
    texts = [f"{name} {share:.1%}" for name, _, share in entries]
    width = 3 * MARGIN + SWATCH + max(int(font.getlength(text)) for text in texts)
    height = max(image.height, len(entries) * ROW + 2 * MARGIN)
    canvas = Image.new("RGB", (image.width + width, height), "white")
    canvas.paste(image)
    draw = ImageDraw.Draw(canvas)
    for number, (text, (_, colour, _)) in enumerate(zip(texts, entries, strict=True)):
        left, top = image.width + MARGIN, MARGIN + number * ROW
        draw.rectangle((left, top, left + SWATCH, top + SWATCH), fill=colour, outline="black")
        draw.text((left + SWATCH + MARGIN, top + SWATCH // 2), text, fill="black", font=font, anchor="lm")
    return canvas
