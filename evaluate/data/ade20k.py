"""Images of ADE20K with their masks: where they are, and whether they are the validation set."""

from pathlib import Path

import torch

from hf_models.errors import InputError
from hf_models.inference.files import check_path
from hf_models.segmentation import masks

from .images import IMAGE_SUFFIXES, ImageData, Sample, Selection, from_files, limited
from .splits import VALIDATION
from .tables import mask_content, open_tables

FULL = "ADE20K validation"
NUM_IMAGES, NUM_LABELS = 2000, 150
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
    return from_files(f"{root.name} {folder.name}", root, pairs, folder.name)


def check_images(data: ImageData, subset: bool, limit: int | None) -> Selection:
    """Refuse to take anything else for the validation set.

    Args:
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
    if count == NUM_IMAGES and limit is None and data.split in (None, *VALIDATION):
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
    """The classes of an image's pixels, (H, W) in 8 bits, `IGNORED` where none is labelled.

    Args:
        size: Width and height of the image.
        reduce_zero_label: See [`hf_models.segmentation.masks.read_mask`].

    Raises:
        InputError: The mask is unreadable, of another size than the image, or holds other labels.
    """
    name = str(sample.target) if isinstance(sample.target, Path) else f"{sample.name}: mask"
    content = sample.target if isinstance(sample.target, Path) else mask_content(sample.target, sample.name)
    mask = masks.read_mask(content, NUM_LABELS, reduce_zero_label, name)
    if mask.shape[::-1] != size:
        raise InputError("{}: {} x {} pixels, the image has {} x {}.".format(name, *mask.shape[::-1], *size))
    return torch.from_numpy(mask)
