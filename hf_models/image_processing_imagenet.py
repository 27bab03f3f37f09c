"""The image processor of the classifiers: resizing and cropping as torchvision does on Pillow images."""

import numpy as np
from transformers import BitImageProcessorPil
from transformers.image_utils import SizeDict


class ImageNetImageProcessor(BitImageProcessorPil):
    """Resize, centre crop and normalise as the authors' evaluations do.

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
