"""Where the pixels that a model sees lie in the photo that it was given."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor

from ..errors import InputError

Points = float | np.ndarray


@dataclass(frozen=True)
class ImageView:
    """What an image processor shows of an image: resized, then cropped or padded.

    Positions are in pixels, whole numbers at the centres of pixels, as in the deformable operator and in matplotlib.

    Args:
        image_size: Width and height of the image.
        resized: Width and height after the resize.
        corner: The pixel of the resized image that is the model's first, (x, y); negative where it was padded.
        size: Width and height of what the model sees.
    """

    image_size: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]

    def to_image(self, x: Points, y: Points) -> tuple[Points, Points]:
        """From pixels of the model's input to pixels of the image."""
        x, y = (
            (position + start + 0.5) * side / new_side - 0.5
            for position, start, side, new_side in zip((x, y), self.corner, self.image_size, self.resized, strict=True)
        )
        return x, y

    def to_input(self, x: Points, y: Points) -> tuple[Points, Points]:
        """From pixels of the image to pixels of the model's input."""
        x, y = (
            (position + 0.5) * new_side / side - 0.5 - start
            for position, start, side, new_side in zip((x, y), self.corner, self.image_size, self.resized, strict=True)
        )
        return x, y

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top edge of what the model sees, in pixels of the image; matplotlib's `extent`."""
        left, top = self.to_image(-0.5, -0.5)
        right, bottom = self.to_image(self.size[0] - 0.5, self.size[1] - 0.5)
        return left, right, bottom, top

    @property
    def image_frame(self) -> tuple[float, float, float, float]:
        """The edges of the whole image in the same order."""
        return -0.5, self.image_size[0] - 0.5, self.image_size[1] - 0.5, -0.5


def prepare_image(
    image: Image.Image, processor: BaseImageProcessor, size: int | None = None
) -> tuple[torch.Tensor, ImageView]:
    """Prepare an image for a model, and say which part of it that shows.

    Args:
        image: An RGB image.
        processor: The model's image processor.
        size: Side in pixels of the square that the model sees, instead of the processor's.

    Returns:
        (1, 3, height, width), and the view.
    """
    options = {} if size is None else _resizing(processor, size)
    pixel_values = processor(image, return_tensors="pt", **options).pixel_values
    whole = processor(image, return_tensors="pt", **(options | {"do_center_crop": False})).pixel_values
    height, width = whole.shape[-2:]
    # The crop is the processor's own: an image of which each pixel says where it is, counted from 1, goes through it.
    columns, rows = np.meshgrid(np.arange(1, width + 1), np.arange(1, height + 1))
    only_crop = {"do_resize": False, "do_rescale": False, "do_normalize": False, "do_convert_rgb": False}
    places = np.stack((columns, rows, rows)).astype(np.float32)  # (3, height, width)
    cropped = processor(
        places, return_tensors="np", input_data_format="channels_first", **(options | only_crop)
    ).pixel_values[0]
    row, column = np.argwhere(cropped[0])[0]  # padding is 0
    corner = (int(cropped[0, row, column]) - 1 - int(column), int(cropped[1, row, column]) - 1 - int(row))
    return pixel_values, ImageView(image.size, (width, height), corner, (cropped.shape[2], cropped.shape[1]))


def check_size(size: int, output_stride: int) -> None:
    """Raise an `InputError` for a side of images that no whole number of positions of the last feature map covers."""
    if size < output_stride or size % output_stride:
        raise InputError(f"--size must be a positive multiple of {output_stride}, got {size}.")


def _resizing(processor: BaseImageProcessor, size: int) -> dict:
    square = {"height": size, "width": size}
    if not processor.size.shortest_edge:
        return {"size": square, "crop_size": square}
    margin = processor.size.shortest_edge / processor.crop_size.height if processor.do_center_crop else 1
    return {"size": {"shortest_edge": round(size * margin)}, "crop_size": square}
