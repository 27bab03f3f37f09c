"""Images with their labels or masks, not yet read."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from hf_models.errors import InputError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"}


@dataclass(frozen=True)
class Sample:
    """One image, not yet read.

    Args:
        index: Its place in the data set.
        name: What errors call it; ends with the name of its file, where there is one.
        image: A file, or the content of one.
        target: Its class or its mask.
    """

    index: int
    name: str
    image: Path | bytes
    target: Any

    @property
    def file(self) -> Path | BytesIO:
        """What an image can be read from."""
        return BytesIO(self.image) if isinstance(self.image, bytes) else self.image


@dataclass(frozen=True)
class ImageData:
    """A data set.

    Args:
        name: For tables.
        fingerprint: Changes when the data do.
        count: Number of samples, `None` if not known before they are read.
        samples: Starts to read them, in order.
        targets: Starts to read what they are labelled with, without the images; `None` if that means a download.
        names: Names of the classes, where the data set states them and not only their numbers.
        split: The split that was asked for or chosen, where there are several.
    """

    name: str
    fingerprint: str
    count: int | None
    samples: Callable[[], Iterator[Sample]]
    targets: Callable[[], Iterator[Any]] | None
    names: list[str] | None = None
    split: str | None = None


@dataclass(frozen=True)
class Selection:
    """The images of a data set that are evaluated.

    Args:
        data: The data set.
        title: What the images may be called.
        prefix: What the name of a metric on them begins with: nothing for all that a benchmark has, else "subset ".
        count: How many they are, `None` if not known before they are read.
        limit: Take only so many, the first ones; `None` for all.
    """

    data: ImageData
    title: str
    prefix: str
    count: int | None
    limit: int | None

    def samples(self) -> Iterator[Sample]:
        """Start to read them, in order."""
        return islice(self.data.samples(), self.limit)


def limited(count: int | None, limit: int | None) -> int | None:
    """How many of `count` images are evaluated; `None` if not known."""
    return count if limit is None else min(limit, count or limit)


def from_files(name: str, root: Path, pairs: list[tuple[Path, Any]], split: str | None = None) -> ImageData:
    """A data set of image files, each with its target; its fingerprint is of their names and sizes.

    Raises:
        InputError: A name is that of no file, such as a broken link or a pipe.
    """
    digest = hashlib.sha256()
    for path in sorted({path for pair in pairs for path in pair if isinstance(path, Path)}):
        if not path.is_file():
            raise InputError(f"{path}: not a file, or a link to none. Nothing evaluated.")
        digest.update(os.fsencode(f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n"))
    return ImageData(
        name,
        f"names and sizes {digest.hexdigest()[:16]}",
        len(pairs),
        lambda: (Sample(index, str(path), path, target) for index, (path, target) in enumerate(pairs)),
        lambda: (target for _, target in pairs),
        split=split,
    )
