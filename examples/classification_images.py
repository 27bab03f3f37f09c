"""Images for `finetune.py`: read when they are needed, augmented to train on."""

import io
import math
import random

from PIL import Image, ImageOps

from hf_models.inference import read_image


class Preparation:
    """What a data set does to the rows that are read from it; augments the images if they are to train on."""

    def __init__(self, processor, channels: int, train: bool):
        self.processor = processor
        self.channels = channels
        self.train = train

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        images = [opened(image, self.channels) for image in rows["image"]]
        if self.train:
            crop = self.processor.crop_size
            images = [augmented(image, crop["width"], crop["height"]) for image in images]
        # the augmented image has the size already: only normalisation is left to do
        kwargs = {"do_resize": not self.train, "do_center_crop": not self.train}
        return {**self.processor(images, return_tensors="pt", **kwargs), "labels": rows["label"]}


def opened(row: dict, channels: int) -> Image.Image:
    """The image of a row, or an `InputError` that names it."""
    file = io.BytesIO(row["bytes"]) if row["bytes"] else row["path"]
    return read_image(file, row["path"] or "an image of the data", channels=channels)


def augmented(image: Image.Image, width: int, height: int) -> Image.Image:
    """A random part of an image, 35 to 100 % of its area and 3:4 to 4:3 as wide, mirrored half the time."""
    ratio, area = math.exp(random.uniform(-1, 1) * math.log(4 / 3)), random.uniform(0.35, 1) * math.prod(image.size)
    box_width, box_height = min(image.width, math.sqrt(area * ratio)), min(image.height, math.sqrt(area / ratio))
    left, top = random.uniform(0, image.width - box_width), random.uniform(0, image.height - box_height)
    box = (left, top, left + box_width, top + box_height)
    image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return ImageOps.mirror(image) if random.random() < 0.5 else image
