"""The image processor of the classifiers: resizing and cropping as torchvision does on Pillow images."""

import numpy as np
from PIL import Image, ImageOps
from transformers import BitImageProcessorPil
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import SizeDict


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


class UprightPilBackend(PilBackend):
    """The stock backend for image processors on NumPy arrays, which reads photos as [`upright_rgb`] does."""

    def process_image(
        self, image: Image.Image | np.ndarray, do_convert_rgb: bool | None = None, **kwargs
    ) -> np.ndarray:
        """To an array (C, H, W); see the stock processor.

        Raises:
            ValueError: The image has more than 8 bits per channel and nothing says how to scale them.
        """
        if isinstance(image, Image.Image) and do_convert_rgb:
            image = upright_rgb(image)
        if getattr(image, "dtype", None) in (np.uint16, np.uint32):
            raise ValueError(f"image: expected 8 bits per channel or floats, got {image.dtype}. Scale it first.")
        return super().process_image(image, do_convert_rgb=do_convert_rgb, **kwargs)


class ImageNetImageProcessor(UprightPilBackend, BitImageProcessorPil):
    """Resize, centre crop and normalise as the authors' evaluations do, after [`upright_rgb`].

    All of them use torchvision on Pillow images. The stock processor does the same but for the crop: it rounds half a
    pixel down, torchvision to the even number. Where the image is 3, 7, 11, ... pixels longer than the crop, the two
    are one pixel apart. There is no variant for tensors: its resizing would differ from Pillow's.
    """

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
