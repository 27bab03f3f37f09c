"""Photos that users bring."""

import math
import re
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ..errors import InputError, reason
from ..image_processing_imagenet import upright_image

MAX_ASPECT_RATIO = 100
DEEP = re.compile("(LA?|RGB[AXa]?|CMYK);(16|32)")  # Pillow's names for how the pixels are stored
DEEP_AVIF = re.compile(rb"av1C\x81.[\x40-\x7f\xc0-\xff]", re.DOTALL)  # its header, with the bit `high_bitdepth`
# what photos come in; Pillow knows others, one of which runs a program on the file
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
HEIC = re.compile(rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)  # what its files begin with


def read_image(
    file: str | Path | BinaryIO, name: str | None = None, *, upright: bool = True, channels: int = 3
) -> Image.Image:
    """Read an image file as [`upright_image`] makes it.

    Args:
        file: A path or an open file.
        name: What errors call it; by default `file`.
        upright: Whether to turn the image as its EXIF data say. Without, those data are dropped, so that nothing
            later turns it: the authors of ImageNet classifiers measure without.
        channels: What the model takes: 1, 3 or 4.

    Raises:
        InputError: The file is missing, no image, truncated or huge, has more than 8 bits per channel or an extreme
            aspect ratio.
    """
    path = name or file
    try:
        with Image.open(file, formats=_formats()) as image:
            deep = _is_deep(image)
            image.load()
    except FileNotFoundError:
        advice = " Download it first." if re.match("https?:/", str(path)) else ""
        raise InputError(f"{path}: no such file.{advice}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder. Name its image files.") from None
    except UnidentifiedImageError:
        if HEIC.match(_beginning(file)):
            raise InputError(
                f"{path}: HEIC, which Pillow alone does not read. Run `pip install pillow-heif`."
            ) from None
        raise InputError(f"{path}: not an image in a format of {', '.join(FORMATS)}.") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels. Make it smaller.") from None
    except Exception as error:  # Pillow's formats raise anything where a file is damaged
        raise InputError(f"{path}: cannot be read completely ({reason(error)}). Fetch the file again.") from None
    if deep:
        raise InputError(f"{path}: more than 8 bits per channel (mode {image.mode}). Convert to 8-bit first.")
    ratio = max(image.size) / min(image.size)
    if ratio > MAX_ASPECT_RATIO:
        raise InputError(f"{path}: aspect ratio {math.ceil(ratio)}:1 exceeds {MAX_ASPECT_RATIO}:1. Crop the image.")
    if not upright:  # a copy without the EXIF data
        image = Image.frombytes("RGBA", image.size, image.convert("RGBA").tobytes())
    try:
        return upright_image(image, channels)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _formats() -> tuple[str, ...]:
    """What is read: HEIC too, the format of iPhones, where a user installed what reads it."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return FORMATS
    register_heif_opener()
    return (*FORMATS, "HEIF")


def _beginning(file: str | Path | BinaryIO) -> bytes:
    if isinstance(file, (str, Path)):
        with open(file, "rb") as opened:
            return opened.read(12)
    file.seek(0)
    return file.read(12)


def check_picture(out: str | Path) -> Path:
    """The path of an image file to write.

    Raises:
        InputError: Its name is not that of an image file, or its folder does not exist.
    """
    out = Path(out)
    if out.suffix.lower() not in Image.registered_extensions():
        raise InputError(f"{out}: not a name of an image file. Give one that ends in .png or .jpg.")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}.")
    return out


def _is_deep(image: Image.Image) -> bool:
    """Whether an image that was opened, and not loaded, has more than 8 bits per channel.

    Its mode says so for greyscale only: of colours Pillow drops the lower bits when it loads them.
    """
    if image.format == "AVIF":
        image.fp.seek(0)
        return bool(DEEP_AVIF.search(image.fp.read()))
    if image.format == "HEIF":
        return image.info["bit_depth"] > 8
    stored = [argument for tile in image.tile for argument in (tile[3] if isinstance(tile[3], tuple) else tile[3:])]
    return image.mode.startswith(("I", "F")) or any(
        argument > 255 if image.format == "PPM" and isinstance(argument, int) else DEEP.match(str(argument))
        for argument in stored
    )
