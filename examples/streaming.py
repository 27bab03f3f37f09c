"""Images to train on from shards, parquet or webdataset (tar) files, which are read as they come and never copied.

However many processes and workers share the shards: each image comes once in an epoch, every process gets as many
batches, and an epoch goes on at any batch. The streams of `datasets` promise none of these: `split_dataset_by_node`
gives processes as many images as their shards happen to hold, workers divide shards and not images among them, and
`shuffle` loses the images in its buffer where a stream goes on.
"""

import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from torch.utils.data import IterableDataset, get_worker_info

from hf_models.errors import InputError, reason

COLUMNS = ("image", "jpg", "jpeg", "png", "webp"), ("label", "cls")  # of images, of labels
NAME = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)")  # of a file in a tar file

Row = dict[str, Any]


class Shards(IterableDataset):
    """The images of some shards, in another order in each epoch: see `set_epoch`.

    Shards come in random order, and so do images that are near each other in a shard.

    Args:
        files: The shards.
        prepare: Makes of a row, with an encoded `image` and a `label`, what is trained on, by a generator of random
            numbers that follow from the epoch and the place of the image in it.
        batch_size: Images of a batch of one process.
        process: Which of the `processes` this is, from 0.
        workers: Those of the DataLoader; 0 and 1 read alike.
        seed: Of the order.
        mixed: How many images that are near each other are put in random order together.

    Raises:
        InputError: A file cannot be read, or there are fewer images than processes.
    """

    def __init__(
        self,
        files: list[Path],
        prepare: Callable[[Row, np.random.Generator], Any],
        batch_size: int,
        process: int = 0,
        processes: int = 1,
        workers: int = 0,
        seed: int = 0,
        mixed: int = 1000,
    ):
        self.files, self.prepare, self.batch_size = files, prepare, batch_size
        self.process, self.seed, self.mixed = process, seed, mixed
        self.counts = [count_rows(file) for file in files]
        self.shares = shares(sum(self.counts), processes, max(workers, 1), batch_size)
        if not len(self):
            raise InputError(f"{files[0].parent}: {sum(self.counts)} images, fewer than the {processes} processes.")
        self.set_epoch(0)

    def set_epoch(self, epoch: int, batches: int = 0) -> None:
        """Choose an epoch, whose number makes its order, and how many of its batches this process has had."""
        self.epoch, self.batches = epoch, batches

    def __len__(self) -> int:
        """Images of this process in an epoch."""
        return sum(self.shares[self.process])

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        worker = (worker + self.batches) % workers  # the next batch comes from the first worker, whatever it was
        sizes = [size for of_process in self.shares for size in of_process]  # of all readers, one after the other
        reader = self.process * workers + worker
        had = len(range(worker, self.batches, workers)) * self.batch_size  # workers take turns
        start = had - had % self.mixed
        rows = islice(self._rows(sum(sizes[:reader]) + start), sizes[reader] - start)
        while near := list(islice(rows, self.mixed)):
            order = np.random.default_rng((self.seed, self.epoch, reader, start)).permutation(len(near))
            for index in order[max(had - start, 0) :]:
                yield self.prepare(near[index], np.random.default_rng((self.seed, self.epoch, reader, start, index)))
            start += self.mixed

    def _rows(self, start: int) -> Iterator[Row]:
        """All rows in the epoch's order of the shards, from one on."""
        for index in np.random.default_rng((self.seed, self.epoch)).permutation(len(self.files)):
            if start < self.counts[index]:
                yield from read_rows(self.files[index], start)
            start = max(start - self.counts[index], 0)


def shares(total: int, processes: int, workers: int, batch_size: int) -> list[list[int]]:
    """How many images each worker of each process reads: all there are, and in every process as many batches.

    The last images are left out where they are fewer than the processes, some of which would have no batch of them.
    """
    full, rest = divmod(total, processes * batch_size)
    last, more = divmod(rest, processes)
    sizes = []
    for process in range(processes):
        of_workers = [len(range(worker, full, workers)) * batch_size for worker in range(workers)]
        if last:
            of_workers[full % workers] += last + (process < more)
        sizes.append(of_workers)
    return sizes


def count_rows(file: Path) -> int:
    """Rows of a shard, by the end of a parquet file or the names in a tar file."""
    with _readable(file):
        if file.suffix == ".parquet":
            return pyarrow.parquet.read_metadata(file).num_rows
        with tarfile.open(file) as tar:
            return sum(1 for _ in _samples(tar))


def read_rows(file: Path, start: int = 0) -> Iterator[Row]:
    """The rows of a shard from one on: `image`, its `bytes` and a `path` that tells it from others, and `label`."""
    read = _read_parquet if file.suffix == ".parquet" else _read_tar
    with _readable(file):
        for number, (image, path, label) in enumerate(read(file, start), start):
            where = ", ".join(filter(None, (f"{file}, row {number}", path)))
            yield {"image": {"bytes": image, "path": where}, "label": label}


def _read_parquet(file: Path, start: int) -> Iterator[tuple[bytes, str | None, int]]:
    with pyarrow.parquet.ParquetFile(file) as table:
        columns = _choose(file, table.schema_arrow.names)
        groups = list(range(table.num_row_groups))
        while groups and start >= (size := table.metadata.row_group(groups[0]).num_rows):
            start -= size
            groups.pop(0)
        batches = table.iter_batches(batch_size=100, row_groups=groups, columns=columns)
        rows = (row for batch in batches for row in batch.to_pylist())
        for row in islice(rows, start, None):
            image, label = (row[column] for column in columns)
            if not isinstance(image, dict):
                raise InputError(f"{file}: its column {columns[0]} holds no images as `datasets` writes them.")
            content = image["bytes"] or Path(image["path"]).read_bytes()  # `to_parquet` leaves files where they are
            yield content, image["path"], label


def _read_tar(file: Path, start: int) -> Iterator[tuple[bytes, str, int]]:
    with tarfile.open(file) as tar:
        for members in islice(_samples(tar), start, None):
            image, label = _choose(file, members)
            content, number = (tar.extractfile(members[name]).read() for name in (image, label))
            yield content, members[image].name, int(number)


def _samples(tar: tarfile.TarFile) -> Iterator[dict[str, tarfile.TarInfo]]:
    """Suffix -> file, for the files of a sample, which lie together and share all that is before the first dot."""
    named = ((match, member) for member in tar if member.isfile() and (match := NAME.fullmatch(member.name)))
    for _, sample in groupby(named, key=lambda pair: pair[0][1]):
        yield {match[2].lower(): member for match, member in sample}


def _choose(file: Path, names: Iterable[str]) -> list[str]:
    """The names of image and label."""
    found = [next((name for name in usual if name in names), None) for usual in COLUMNS]
    if None in found:
        raise InputError(f"{file}: no column of images or labels, only {', '.join(names)}. Rename them.")
    return found


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turns what pyarrow and tarfile raise into one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, tarfile.TarError, pyarrow.ArrowException) as error:
        raise InputError(f"{file}: cannot be read ({reason(error)}). Fetch it again.") from error
