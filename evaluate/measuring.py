"""Each image of a data set measured once, whatever the batch size and the number of processes."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tqdm import tqdm

from hf_models.errors import InputError

from .data.images import Sample
from .evaluation import Evaluation
from .journal import Journal
from .processes import Processes
from .settings import Settings

# what PyTorch says where the C library finds no memory
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass(frozen=True)
class Measured:
    """What all processes measured.

    Args:
        records: One for each image, in the order of the data set.
        seconds: What all processes took together.
    """

    records: list[bytes]
    seconds: float


def measure_images(
    evaluation: Evaluation, settings: Settings, journal: Journal, processes: Processes
) -> Measured | None:
    """Measure all images that the journal does not have yet, and add what it has.

    Each process takes the images whose index, modulo the number of processes, is its own: none twice.

    Returns:
        Everything in the first process, `None` in the others.

    Raises:
        InputError: An image cannot be used (the journals are removed), or there is too little memory.
    """
    processes.wait()  # until all have read the journals
    journal.start(processes.index)
    total, records, seconds = evaluation.selection.count, {}, 0.0
    mine = (s for s in evaluation.selection.samples() if s.index % processes.count == processes.index)
    pending = (sample for sample in mine if sample.index not in journal.done)
    share = None if total is None else len(range(processes.index, total, processes.count))
    before = sum(index % processes.count == processes.index for index in journal.done)
    bar = tqdm(total=share, initial=before, unit="image", disable=None if processes.is_main else True)
    try:
        with bar:
            prepared = _prepared(pending, evaluation.prepare, settings.num_workers, settings.batch_size)
            while True:
                start = time.perf_counter()
                if not (batch := list(islice(prepared, settings.batch_size))):
                    break
                indexes, images = zip(*batch, strict=True)
                measured = dict(zip(indexes, evaluation.measure(list(images)), strict=True))
                elapsed = time.perf_counter() - start
                journal.write(measured, elapsed)
                records |= measured
                seconds += elapsed
                bar.update(len(batch))
    except InputError:
        journal.remove()
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error).lower() for words in NO_MEMORY):
            raise
        raise InputError(
            f"out of memory at batch size {settings.batch_size}. {_advice(settings.batch_size, journal)}"
        ) from error
    finally:
        journal.close()
    shares = processes.gather((records, seconds))
    if not shares:
        return None
    everything = journal.done.copy()
    for records, _ in shares:
        everything |= records
    return Measured([everything[i] for i in sorted(everything)], journal.seconds + sum(took for _, took in shares))


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
