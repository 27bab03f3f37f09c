"""The image processor of the classifiers: resizing and cropping as torchvision does on Pillow images."""

import numpy as np
from PIL import Image, ImageOps
from transformers import BitImageProcessorPil
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import SizeDict

# Pillow's modes by their channels. RGBX has four alike; in RGBA, Pillow's resizing weighs the colours by the fourth.
MODES = {1: "L", 3: "RGB", 4: "RGBX"}


def upright_rgb(image: Image.Image) -> Image.Image:
    """A photo as all of this package sees it: upright, in RGB, with 8 bits per channel.

    It is turned as its EXIF data say. Transparency is dropped, so that pixels keep the colour that is stored under it.
    Of 16 bits the upper 8 are kept, as Pillow itself does for colour images. transformers' pipelines do the same but
    for greyscale with 16 bits, which they clip to white before any image processor sees it.

    Raises:
        ValueError: The image has 32 bits per channel, for which nothing says what black and white are.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"32 bits per channel (mode {image.mode}). Scale it to 8 bits first.")
    return image.convert("RGB")


def upright_image(image: Image.Image, channels: int) -> Image.Image:
    """A photo for a model of 1, 3 or 4 channels: as [`upright_rgb`] makes it, in grey, or with its transparency.

    A photo without transparency is opaque.

    Raises:
        ValueError: As for `upright_rgb`; or `channels` is another number.
    """
    if channels not in MODES:
        raise ValueError(f"{channels} channels are wanted, and images have 1, 3 or 4. Pass arrays.")
    if channels < 4:
        return upright_rgb(image).convert(MODES[channels])
    if image.mode == "RGBX":  # it was here before
        return image
    image = ImageOps.exif_transpose(image) if image.has_transparency_data else upright_rgb(image)
    return Image.merge("RGBX", image.convert("RGBA").split())


class UprightPilBackend(PilBackend):
    """The stock backend for image processors on NumPy arrays, which reads photos as [`upright_image`] does.

    Images have as many channels as `image_mean` has values: 1, 3 or 4.
    """

    @property
    def channels(self) -> int:
        """How many channels the model takes."""
        return len(self.image_mean) if isinstance(self.image_mean, (list, tuple)) else 3

    def fit_channels(self, channels: int) -> None:
        """Prepare images for a model that takes another number of channels, because it was loaded so.

        Mean and deviation follow its stem: one channel gets their average, more channels repeat them in order.
        """
        if channels == self.channels:
            return
        for name in ("image_mean", "image_std"):
            values = list(getattr(self, name))
            fitted = [values[index % len(values)] for index in range(channels)]
            setattr(self, name, [sum(values) / len(values)] if channels == 1 else fitted)

    def process_image(
        self, image: Image.Image | np.ndarray, do_convert_rgb: bool | None = None, **kwargs
    ) -> np.ndarray:
        """To an array (C, H, W); see the stock processor.

        Raises:
            ValueError: The image has more than 8 bits per channel and nothing says how to scale them.
        """
        if isinstance(image, Image.Image) and do_convert_rgb:
            image = upright_image(image, self.channels)
        if getattr(image, "dtype", None) in (np.uint16, np.uint32):
            raise ValueError(f"image: expected 8 bits per channel or floats, got {image.dtype}. Scale it first.")
        return super().process_image(image, do_convert_rgb=do_convert_rgb and self.channels == 3, **kwargs)


class ImageNetImageProcessor(UprightPilBackend, BitImageProcessorPil):
    """Resize, centre crop and normalise as the authors' evaluations do, after [`upright_image`].

    All of them use torchvision on Pillow images. The stock processor does the same but for the crop: it rounds half a
    pixel down, torchvision to the even number. Where the image is 3, 7, 11, ... pixels longer than the crop, the two
    are one pixel apart. There is no variant for tensors: its resizing would differ from Pillow's.
    """

    def resize(self, image: np.ndarray, size: SizeDict, **kwargs) -> np.ndarray:
        """Resize `image`, (C, H, W); of four channels the last for itself, since Pillow weighs the others by it."""
        if len(image) != 4:
            return super().resize(image, size, **kwargs)
        colours, fourth = super().resize(image[:3], size, **kwargs), super().resize(image[3:], size, **kwargs)
        return np.concatenate([colours, fourth])

    def center_crop(self, image: np.ndarray, size: SizeDict, **kwargs) -> np.ndarray:
        """Cut the central `size.height` x `size.width` pixels out of `image`, (C, H, W).

        A smaller image is padded with zeros, as in the stock processor.
        """
        top, left = (
            round((side - wanted) / 2)  # half a pixel goes to the even number
            for side, wanted in zip(image.shape[-2:], (size.height, size.width), strict=True)
        )
        if top < 0 or left < 0:
            return super().center_crop(image, size, **kwargs)
        return image[..., top : top + size.height, left : left + size.width]


ImageNetImageProcessor.register_for_auto_class()  # so that saving a processor saves this file too
