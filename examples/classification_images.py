"""Images for `finetune.py`: read when they are needed, augmented to train on."""

import io
import math
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from training_photos import UNLABELLED, Photos

from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.inference import read_image


class LabelledPhotos(Photos):
    """Photos with the numbers of their classes.

    Args:
        rows: With an `image` that is not decoded, and a `label`.
        processor: Gives the size of the images, mean and standard deviation.
        train: Whether random parts of the photos are seen; a whole one that is skipped has no label.
        options: See [`Photos`].
    """

    def __init__(self, rows: datasets.Dataset, processor: ImageNetImageProcessor, train: bool, **options):
        super().__init__(len(rows), **options)
        self.rows, self.processor, self.train = rows, processor, train

    def load(self, index: int) -> tuple[Image.Image, int]:
        """A photo and its label."""
        return opened(self.rows[index], self.processor)

    def example(self, loaded: tuple[Image.Image, int], random: np.random.Generator | None) -> dict[str, Any]:
        """`pixel_values` (channels, height, width) and `labels`, a number."""
        return prepared(*loaded, self.processor, random)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An example for the model."""
        if self.train:
            return super().__getitem__(index)
        if (loaded := self.read(index)) is not None:
            return self.example(loaded, None)
        crop = self.processor.crop_size
        pixel_values = torch.zeros(self.processor.channels, crop["height"], crop["width"])
        return {"pixel_values": pixel_values, "labels": UNLABELLED}


def opened(row: dict[str, Any], processor: ImageNetImageProcessor) -> tuple[Image.Image, int]:
    """The image of a row, or an `InputError` that names it, and its label."""
    image = row["image"]
    file = io.BytesIO(image["bytes"]) if image["bytes"] else image["path"]
    return read_image(file, image["path"] or "an image of the data", channels=processor.channels), row["label"]


def prepared(
    image: Image.Image, label: int, processor: ImageNetImageProcessor, random: np.random.Generator | None
) -> dict[str, Any]:
    """What a classifier takes: a random part of the image, or all of it."""
    options = {}
    if random:
        image = augmented(image, processor.crop_size["width"], processor.crop_size["height"], random)
        options = {"do_resize": False, "do_center_crop": False}  # only normalisation is left to do
    return {"pixel_values": processor(image, return_tensors="pt", **options).pixel_values[0], "labels": label}


def augmented(image: Image.Image, width: int, height: int, random: np.random.Generator) -> Image.Image:
    """A random part of an image, 35 to 100 % of its area and 3:4 to 4:3 as wide, mirrored half the time."""
    ratio, area = math.exp(random.uniform(-1, 1) * math.log(4 / 3)), random.uniform(0.35, 1) * math.prod(image.size)
    box_width, box_height = min(image.width, math.sqrt(area * ratio)), min(image.height, math.sqrt(area / ratio))
    left, top = random.uniform(0, image.width - box_width), random.uniform(0, image.height - box_height)
    box = (left, top, left + box_width, top + box_height)
    image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return ImageOps.mirror(image) if random.random() < 0.5 else image
