"""Images with one label each: where they are."""

from pathlib import Path

from hf_models.errors import InputError
from hf_models.inference.files import check_path

from .images import IMAGE_SUFFIXES, ImageData, from_files
from .splits import HELD_OUT, TRAINING, choose_split, split_of
from .tables import BUILDERS, open_tables

LABEL_COLUMNS = ("label", "cls")


def open_labelled(
    data: str,
    split: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> ImageData:
    """A folder of class folders, parquet or tar files, or a data set on the Hub; see [`open_tables`].

    Args:
        data: Where it is; class folders may lie in a folder for each split.
        split: That folder; by default as [`choose_split`] chooses.

    Raises:
        InputError: It is none of these, or a class folder is empty.
    """
    check_path(data)
    root = Path(data)
    splits = {} if split else {folder.name.lower(): folder for folder in _folders(root) if _is_split(folder)}
    if splits:
        split = choose_split(data, splits)
        root = splits[split]
    elif split and root.is_dir():
        root = root / split
    folders = _folders(root)
    if not folders:
        inside = root.is_dir() and root != Path(data)
        if inside and not any(split_of(path.stem) for path in root.iterdir()):
            split = None  # the folder alone says which it is
        return open_tables(str(root) if inside else data, split, revision, image_column, label_column, LABEL_COLUMNS)
    for column in (image_column, label_column):
        if column:
            raise InputError(f"{root}: no column {column}; class folders have none. Leave the option out.")
    pairs = []
    for folder in folders:
        images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise InputError(f"{folder}: no images in this class folder. Nothing evaluated.")
        pairs += [(image, folder.name) for image in images]
    return from_files(root.name, root, pairs)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _is_split(folder: Path) -> bool:
    """Whether a folder holds a split: by its name, and as it holds folders or tables and not only images."""
    return folder.name.lower() in TRAINING + HELD_OUT and any(
        path.is_dir() or path.suffix in BUILDERS for path in folder.iterdir()
    )
