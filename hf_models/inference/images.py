"""Photos that users bring."""

from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ..errors import InputError, reason

MAX_ASPECT_RATIO = 100
# what photos come in; Pillow knows others, one of which runs a program on the file
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def read_image(file: str | Path | BinaryIO, name: str | None = None) -> Image.Image:
    """Read an image file as RGB.

    Args:
        file: A path or an open file.
        name: What errors call it; by default `file`.

    Raises:
        InputError: The file is missing, no image, truncated or huge, has 16 bits per channel or an extreme aspect
            ratio.
    """
    path = name or file
    try:
        with Image.open(file, formats=FORMATS) as image:
            image.load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (UnidentifiedImageError, IsADirectoryError):
        raise InputError(f"{path}: not an image in a format of {', '.join(FORMATS)}.") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels. Make it smaller.") from None
    except Exception as error:  # Pillow's formats raise anything where a file is damaged
        raise InputError(f"{path}: cannot be read completely ({reason(error)}). Fetch the file again.") from None
    if image.mode.startswith(("I", "F")):
        raise InputError(f"{path}: more than 8 bits per channel (mode {image.mode}). Convert to 8-bit first.")
    ratio = max(image.size) / min(image.size)
    if ratio > MAX_ASPECT_RATIO:
        raise InputError(f"{path}: aspect ratio {ratio:.0f}:1 exceeds {MAX_ASPECT_RATIO}:1. Crop the image.")
    return image.convert("RGB")
