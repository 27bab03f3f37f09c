"""Images of ADE20K with their masks: where they are, and whether they are the validation set."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hf_models.errors import InputError, reason
from hf_models.inference.files import check_path
from hf_models.inference.images import FORMATS

from .images import IMAGE_SUFFIXES, ImageData, Sample, Selection, from_files, limited
from .tables import mask_content, open_tables

FULL = "ADE20K validation"
NUM_IMAGES, NUM_LABELS = 2000, 150
IGNORED = 255  # the class of pixels that do not count
MASK_COLUMNS = ("annotation", "mask", "label", "png")


def open_ade20k(
    data: str,
    split: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    mask_column: str | None = None,
) -> ImageData:
    """The folder ADEChallengeData2016, or parquet or tar files or a data set on the Hub with columns of masks.

    Args:
        split: In the folder that of `images` and `annotations`, validation by default; else see [`open_tables`].

    Raises:
        InputError: It is none of these, or an image has no mask.
    """
    check_path(data)
    root = Path(data)
    if not (root / "images").is_dir():
        return open_tables(data, split, revision, image_column, mask_column, MASK_COLUMNS)
    for column in (image_column, mask_column):
        if column:
            raise InputError(f"{root}: no column {column}; the folder has none. Leave the option out.")
    folder = root / "images" / (split or "validation")
    images = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise InputError(f"{folder}: no images. Nothing evaluated.")
    pairs = [(image, root / "annotations" / folder.name / f"{image.stem}.png") for image in images]
    for image, mask in pairs:
        if not mask.is_file():
            raise InputError(f"{mask}: no such file, the mask of {image.name}. Nothing evaluated.")
    return from_files(f"{root.name} {folder.name}", root, pairs)


def check_images(data: ImageData, split: str | None, subset: bool, limit: int | None) -> Selection:
    """Refuse to take anything else for the validation set.

    Args:
        split: As given to [`open_ade20k`].
        subset: Accept another number of images; the result is then called a subset's.
        limit: How many of the images are evaluated; `None` for all.

    Raises:
        InputError: It is not the whole validation set, and a subset was not asked for.
    """
    count = data.count
    if count is None and data.targets:
        count = sum(1 for _ in data.targets())
    if count == 0:
        raise InputError(f"{data.name}: no images. Nothing evaluated.")
    if count == NUM_IMAGES and limit is None and split in (None, "validation"):
        return Selection(data, FULL, "", count, limit)
    if not subset and limit is None:
        found = "an unknown number of" if count is None else f"{count:,}"
        raise InputError(
            f"{data.name}: {found} images, those of ADE20K's validation are {NUM_IMAGES:,}. Nothing evaluated. "
            "Pass --subset to measure on what there is."
        )
    count = limited(count, limit)
    title = data.name if count is None else f"{data.name}, {count:,} images"
    return Selection(data, title, "subset ", count, limit)


def read_mask(sample: Sample, size: tuple[int, int], reduce_zero_label: bool) -> torch.Tensor:
    """The classes of an image's pixels, (H, W), `IGNORED` where none is labelled.

    Args:
        size: Width and height of the image.
        reduce_zero_label: The file holds 0 where nothing is labelled, and the classes from 1; otherwise the classes
            from 0, and `IGNORED`.

    Raises:
        InputError: The mask is unreadable, of another size than the image, or holds other labels.
    """
    name = str(sample.target) if isinstance(sample.target, Path) else f"{sample.name}: mask"
    content = sample.target if isinstance(sample.target, Path) else mask_content(sample.target, sample.name)
    try:
        with Image.open(BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS) as image:
            image.load()
    except Exception as error:  # Pillow's formats raise anything where a file is damaged
        raise InputError(f"{name}: cannot be read completely ({reason(error)}). Fetch the file again.") from None
    if image.size != size:
        raise InputError("{}: {} x {} pixels, the image has {} x {}.".format(name, *image.size, *size))
    mask = np.asarray(image).astype(np.int64)
    if mask.ndim != 2:
        raise InputError(f"{name}: mode {image.mode}, a mask has one channel of class numbers.")
    first = 1 if reduce_zero_label else 0
    ignored = mask == (0 if reduce_zero_label else IGNORED)
    wrong = mask[~ignored & ((mask < first) | (mask >= first + NUM_LABELS))]
    if wrong.size:
        meaning = "0..150 (0 = ignored)" if reduce_zero_label else "0..149 (255 = ignored)"
        raise InputError(f"{name}: label {wrong[0]} outside {meaning}.")
    return torch.from_numpy(np.where(ignored, IGNORED, mask - first))
