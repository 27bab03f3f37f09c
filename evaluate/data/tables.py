"""Data sets in parquet or webdataset (tar) files, on disk or on the Hub, read as a stream by `datasets`."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_models.errors import InputError, reason
from hf_models.inference.hub_requests import HUB_ID

from .images import ImageData, Sample
from .splits import choose_split, split_of

if TYPE_CHECKING:
    from datasets import IterableDataset

BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}
IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp")


def open_tables(
    data: str,
    split: str | None,
    revision: str | None,
    image_column: str | None,
    target_column: str | None,
    target_columns: tuple[str, ...],
) -> ImageData:
    """A data set in files that `datasets` streams; images, and targets that are images, stay encoded.

    Args:
        data: A parquet or tar file, a folder of them, or the id of a data set on the Hub.
        split: Beginning of the names of the files, a word in them, or split of the data set on the Hub; by default as
            [`choose_split`] chooses.
        revision: Commit, tag or branch on the Hub: without one nothing is downloaded.
        image_column: Name of the column; by default the usual ones are tried. `target_column` likewise, among
            `target_columns`.

    Raises:
        InputError: There is no such data set, it cannot be read, or it lacks a column.
    """
    if Path(data).exists():
        files, split = _files(data, split)
        name = f"{Path(data).name} {split}" if split else Path(data).name
        fingerprint, count = f"sha256 {_sha256(files)}", None
        with _readable(data):
            rows = _stream(BUILDERS[files[0].suffix], data_files={"rows": [str(file) for file in files]}, split="rows")
    elif HUB_ID.fullmatch(data):
        name = data
        with _readable(data):
            split, fingerprint, count, rows = _from_hub(data, split, revision)
    else:
        raise InputError(f"{data}: no such file or folder.")
    image = _choose(data, rows, "image", image_column, IMAGE_COLUMNS)
    target = _choose(data, rows, "label or mask", target_column, target_columns)
    targets = None
    if Path(data).exists():
        labels = rows.select_columns([target])

        def targets() -> Iterator[Any]:
            with _readable(data):
                for row in labels:
                    yield row[target]

    def samples() -> Iterator[Sample]:
        with _readable(data):
            for index, row in enumerate(rows):
                where = row.get("__key__") or (isinstance(row[image], dict) and row[image]["path"])
                label = f"{data}: row {index}" + (f", {where}" if where else "")
                yield Sample(index, label, _content(row[image], label), row[target])

    names = getattr(rows.features[target], "names", None)
    return ImageData(name, fingerprint, count, samples, targets, names, split)


def mask_content(cell: Any, name: str) -> bytes:
    """The encoded mask in a cell of a table."""
    if not isinstance(cell, dict):
        raise InputError(f"{name}: the column of the masks holds no images. Name another --mask-column.")
    return _content(cell, name)


def _content(cell: Any, name: str) -> bytes:
    if not isinstance(cell, dict) or not isinstance(cell.get("bytes"), bytes):
        raise InputError(f"{name}: holds no image, or only the name of one. Fetch the file again.")
    return cell["bytes"]


def _files(data: str, split: str | None) -> tuple[list[Path], str | None]:
    """The files of a split, and which it is; `None` for a file, or where the names of the files say none."""
    path = Path(data)
    tables = [file for file in ([path] if path.is_file() else sorted(path.iterdir())) if file.suffix in BUILDERS]
    if path.is_file():
        split = None
    elif split:
        tables = [file for file in tables if file.name.startswith(split) or split_of(file.stem) == split]
    else:
        split = choose_split(data, {split_of(file.stem) for file in tables})
        tables = [file for file in tables if split is None or split_of(file.stem) == split]
    if not tables:
        what = f"folder or file of the split {split}" if split else "class folders, parquet files or tar files"
        raise InputError(f"{data}: no {what}. Nothing evaluated.")
    if len({file.suffix for file in tables}) > 1:
        raise InputError(f"{data}: holds parquet and tar files. Name one of them, such as {tables[0]}.")
    return tables, split


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def _from_hub(data: str, split: str | None, revision: str | None) -> tuple[str, str, int | None, "IterableDataset"]:
    """The split, its fingerprint, its number of images if the Hub knows it, and its rows."""
    if revision is None:
        raise InputError(f"{data}: is on the Hub. Pass the --revision to stream, such as a commit.")
    from datasets import get_dataset_split_names
    from huggingface_hub import HfApi

    commit = HfApi().dataset_info(data, revision=revision).sha
    split = split or choose_split(data, get_dataset_split_names(data, revision=commit))
    rows = _stream(data, revision=commit, split=split)
    splits = rows.info.splits or {}
    return split, f"commit {commit}, {split}", splits[split].num_examples if split in splits else None, rows


def _stream(*args, **kwargs) -> "IterableDataset":
    """The rows, with columns of images left encoded."""
    from datasets import Image, load_dataset

    rows = load_dataset(*args, streaming=True, **kwargs)
    if rows.features is None:
        rows = rows._resolve_features()  # what `datasets` itself does before it writes a stream to a file
    for column, feature in rows.features.items():
        if isinstance(feature, Image):
            rows = rows.cast_column(column, Image(decode=False))
    return rows


def _choose(data: str, rows: "IterableDataset", what: str, column: str | None, usual: tuple[str, ...]) -> str:
    there = ", ".join(rows.features)
    if column is None:
        column = next((name for name in usual if name in rows.features), None)
        if column is None:
            raise InputError(f"{data}: no column of the {what} is found among {there}. Name it with an option.")
    if column not in rows.features:
        raise InputError(f"{data}: no column {column}. There are: {there}.")
    return column


@contextmanager
def _readable(data: str) -> Iterator[None]:
    """Turns what `datasets` and what it reads with raise into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # `datasets`, pyarrow and the decoders of tar files share no base class
        raise InputError(f"{data}: cannot be read ({reason(error)}). Fetch it again.") from error
