"""Counts over a data set: each sample once, whatever the batch size and the number of processes."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from hf_models.errors import InputError

from .data.images import Sample
from .journal import Journal
from .processes import Processes

# what PyTorch says where the C library finds no memory
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass(frozen=True)
class Totals:
    """What was counted.

    Args:
        n: Number of samples.
        sums: Sum over all samples of what was counted for each.
        seconds: What all processes took together.
    """

    n: int
    sums: list[int]
    seconds: float


def count(
    samples: Iterable[Sample],
    total: int | None,
    prepare: Callable[[Sample], Any],
    measure: Callable[[list[Any]], list[list[int]]],
    width: int,
    *,
    batch_size: int,
    num_workers: int,
    journal: Journal,
    processes: Processes,
) -> Totals:
    """Count over all samples that the journal does not have yet, and add what it has.

    Each process takes the samples whose index, modulo the number of processes, is its own: none twice. Sums are of
    integers, so they do not depend on the order.

    Args:
        samples: All of them, in order.
        total: How many, `None` if not known.
        prepare: Makes a sample ready; called in threads.
        measure: What to count for each sample of a batch, `width` integers.
        num_workers: Threads that prepare samples; 0 for none.

    Raises:
        InputError: A sample cannot be used (the journals are removed), or there is too little memory.
    """
    processes.wait()  # until all have read the journals
    journal.start(processes.index)
    done = journal.done
    mine = (sample for sample in samples if sample.index % processes.count == processes.index)
    pending = (sample for sample in mine if sample.index not in done)
    counted = list(done.values()) if processes.is_main else []
    seconds = journal.seconds if processes.is_main else 0.0
    share = None if total is None else len(range(processes.index, total, processes.count))
    before = sum(index % processes.count == processes.index for index in done)
    bar = tqdm(total=share, initial=before, unit="image", disable=None if processes.is_main else True)
    try:
        with bar:
            prepared = _prepared(pending, prepare, num_workers, batch_size)
            while True:
                start = time.perf_counter()
                if not (batch := list(islice(prepared, batch_size))):
                    break
                counts = measure([ready for _, ready in batch])
                elapsed = time.perf_counter() - start
                journal.write([[index, *values] for (index, _), values in zip(batch, counts, strict=True)], elapsed)
                counted += counts
                seconds += elapsed
                bar.update(len(batch))
    except InputError:
        journal.remove()
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error).lower() for words in NO_MEMORY):
            raise
        raise InputError(f"out of memory at batch size {batch_size}. {_advice(batch_size, journal)}") from error
    finally:
        journal.close()
    # microseconds and the number of samples are integers too
    sums = np.array([len(counted), round(seconds * 1e6), *np.sum(counted or [[0] * width], axis=0)], dtype=np.int64)
    n, microseconds, *sums = processes.sum(sums).tolist()
    return Totals(n, sums, microseconds / 1e6)


def _prepared(
    samples: Iterable[Sample], prepare: Callable[[Sample], Any], num_workers: int, batch_size: int
) -> Iterator[tuple[int, Any]]:
    """Index and what `prepare` made of it, in order; threads work up to two batches ahead."""
    if num_workers == 0:
        for sample in samples:
            yield sample.index, prepare(sample)
        return
    with ThreadPoolExecutor(num_workers) as pool:
        waiting = deque()
        for sample in samples:
            waiting.append((sample.index, pool.submit(prepare, sample)))
            if len(waiting) > 2 * batch_size + num_workers:
                index, future = waiting.popleft()
                yield index, future.result()
        for index, future in waiting:
            yield index, future.result()


def _advice(batch_size: int, journal: Journal) -> str:
    advice = f"Pass --batch-size {batch_size // 2}" if batch_size > 1 else "Pass --dtype bfloat16"
    return f"{advice}, and --resume to go on." if journal.file else f"{advice}."
