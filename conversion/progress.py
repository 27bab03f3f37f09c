"""Progress bars over bytes, and the hash that shows one."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm


@contextmanager
def progress_bar(what: str, size: int, progress: bool) -> Iterator[tqdm]:
    """A bar that counts bytes up to `size`; only on a terminal."""
    with tqdm(desc=what, total=size, unit="B", unit_scale=True, disable=None if progress else True) as bar:
        yield bar


def sha256(path: Path, bar: tqdm) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
