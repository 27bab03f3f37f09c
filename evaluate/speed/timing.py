"""Times implementations beside each other, and records under which conditions."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch

from hf_models.hub_kernels import KERNELS

from ..machine import machine

LONG = 0.5  # seconds
MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def seconds(function: Callable, device: str) -> float:
    """Wall time of one call, to the end of its work on a GPU."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    result = function()  # kept until the clock has stopped: freeing it is not the function's work
    synchronize()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def interleave(
    runs: Mapping[str, Callable[[], float]], rounds: int, limit: float, advance: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds of each run in each round.

    The runs of a round follow one another, so that all of them meet the same machine. Each runs twice and the second
    time counts: it finds its inputs and code in the caches, where a layer before it would have left them, and not
    what the run before it left. One that takes longer than `LONG` runs once: it fills the caches many times over.

    Args:
        runs: Name -> what runs once and returns how long that took.
        rounds: How often, but a run that has taken `limit` seconds in all takes no part in further rounds.
        advance: Called after each round.
    """
    measured = {name: [] for name in runs}
    spent = dict.fromkeys(runs, 0.0)
    for _ in range(rounds):
        for name, run in runs.items():
            if not measured[name] or spent[name] < limit:
                start = time.perf_counter()
                took = run()
                measured[name].append(took if took > LONG else run())
                spent[name] += time.perf_counter() - start
        advance()
    return measured


def milliseconds(times: list[float]) -> dict[str, str]:
    """The columns that sum up the seconds of all rounds."""
    return {
        "rounds": str(len(times)),
        "minimum_ms": f"{min(times) * 1e3:.4f}",
        "median_ms": f"{statistics.median(times) * 1e3:.4f}",
    }


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    """PyTorch runs on `count` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def conditions(device: str, kernels: Collection[str] = KERNELS) -> dict[str, str]:
    """What every row of a benchmark says of this machine now; see [`machine`].

    Warns on stderr where the C library is to return each large result to the system, which costs page faults.
    """
    raised = all(name in os.environ for name in MALLOC)
    if device == "cpu" and not raised:
        advice = " ".join(f"{name}=4294967296" for name in MALLOC)
        print(f"warning: page faults are measured too; set {advice} before the start", file=sys.stderr)
    return {
        **machine(device, kernels),
        "malloc_thresholds": "raised" if raised else "default",
        "load": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "",
    }
