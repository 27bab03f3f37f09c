"""`hf-models benchmark ops`: the deformable operator beside its peers."""

import itertools
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm

from hf_models.deformable_aggregate import deformable_aggregate

from .peers import MISSING_ATTENTION, Implementation, check_agreement, deformable_attention, grid_sample_core, peers
from .results import OPERATORS, merge_results
from .timing import DTYPES, check_choice, check_device, conditions, interleave, milliseconds, seconds, thread_count

SHAPES = {  # images, height, width, groups, channels of a group; kernel 3x3, stride 1, padding 1
    "seed56": (8, 56, 56, 4, 32),
    "seed28": (8, 28, 28, 8, 32),
    "seed14": (8, 14, 14, 16, 32),
    "seed7": (8, 7, 7, 32, 32),
    "T56": (8, 56, 56, 4, 16),  # those of InternImage-T
    "T28": (8, 28, 28, 8, 16),
    "T14": (8, 14, 14, 16, 16),
    "T7": (8, 7, 7, 32, 16),
    "iso14": (64, 14, 14, 24, 32),
    "hi200": (1, 200, 320, 4, 32),
    "hi128": (1, 128, 128, 4, 32),
}


def benchmark_operators(
    shapes: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    batch_size: int | None = None,
    rounds: int = 20,
    device: str = "cpu",
    backward: bool = True,
    results: Path | None = None,
) -> list[dict[str, str]]:
    """Measure, and keep what was measured after each shape.

    Args:
        shapes: Keys of `SHAPES`; all by default.
        dtypes: Keys of `DTYPES`; float32 by default.
        threads: Numbers of threads to measure with, one after the other; 1 by default.
        batch_size: Instead of the shapes' own.
        backward: Whether to time the backward passes too.
        results: CSV file to merge the rows into.

    Returns:
        The rows, as in the file.

    Raises:
        InputError: There is no such shape, dtype or device, or `results` cannot be used.
    """
    shapes, dtypes, threads = shapes or list(SHAPES), dtypes or ["float32"], threads or [1]
    check_choice("shape", shapes, SHAPES)
    check_choice("dtype", dtypes, DTYPES)
    check_device(device)
    if results:
        merge_results(results, [], OPERATORS)  # fails now, not after the first measurement
    about = conditions(device)
    if device == "cpu" and not deformable_attention():
        print(MISSING_ATTENTION, file=sys.stderr)
    cells = list(itertools.product(threads, shapes, dtypes, ("forward", "backward") if backward else ("forward",)))
    measured = []
    with tqdm(total=len(cells) * rounds, disable=None) as bar:
        for count, name, dtype, direction in cells:
            bar.set_description(f"{name} {dtype} {direction}, {count} thread(s)")
            size = (batch_size or SHAPES[name][0], *SHAPES[name][1:])
            with thread_count(count):
                times = _times(size, DTYPES[dtype], direction, rounds, device, bar.update)
            what = {"shape": name, "batch_size": str(size[0]), "dtype": dtype, "direction": direction}
            what |= {"threads": str(count), "size": "{} x {} x {}, {} x {}".format(*size)}
            rows = [
                {**what, "implementation": implementation, **milliseconds(values), **_per_unit(values, size), **about}
                for implementation, values in times.items()
            ]
            measured += rows
            if results:
                merge_results(results, rows, OPERATORS)
    return measured


def implementations(size: tuple[int, ...], dtype: torch.dtype, device: str) -> list[Implementation]:
    """Ours and the peers, on the same random inputs."""
    value, offset, logits = (
        torch.randn(shape, device=device).to(dtype) for shape in (size, (*size[:4], 9, 2), (*size[:4], 9))
    )
    weight = logits.softmax(-1)
    ours = partial(deformable_aggregate, kernel_size=3, padding=1)
    return [
        Implementation("ours", ours, (value, offset, weight)),
        Implementation("ours, fused softmax", partial(ours, softmax=True), (value, offset, logits)),
        Implementation(
            "ours after F.softmax",
            lambda value, offset, logits: ours(value, offset, F.softmax(logits, dim=-1)),
            (value, offset, logits),
        ),
        *peers(value, offset, weight),
    ]


def _times(size, dtype, direction, rounds, device, advance) -> dict[str, list[float]]:
    """Implementation -> seconds of each round; checks first that the results agree."""
    torch.manual_seed(0)
    candidates = implementations(size, dtype, device)
    prepare = _forward if direction == "forward" else _backward
    exact = Implementation("expected", grid_sample_core, tuple(tensor.float() for tensor in candidates[0].inputs))
    with torch.inference_mode(direction == "forward"):
        expected, _ = prepare(exact, device)
        runs = {}
        for candidate in candidates:
            result, runs[candidate.name] = prepare(candidate, device)
            if candidate.same_result:
                check_agreement(f"{candidate.name}, {direction}", result, expected)
        return interleave(runs, rounds, advance)


def _forward(candidate: Implementation, device: str):
    """The output, and what times a pass."""
    run = partial(candidate.function, *candidate.inputs)
    return run(), partial(seconds, run, device)


def _backward(candidate: Implementation, device: str):
    """The gradient of the first input, and what times a backward pass alone."""
    inputs = [tensor.detach().requires_grad_() for tensor in candidate.inputs]
    out = candidate.function(*inputs)
    grad_output = torch.randn(out.shape, device=device, generator=torch.Generator(device).manual_seed(1)).to(out.dtype)

    def run():
        out = candidate.function(*inputs)
        return seconds(lambda: torch.autograd.grad(out, inputs, grad_output), device)

    return torch.autograd.grad(out, inputs, grad_output)[0], run


def _per_unit(times: list[float], size: tuple[int, ...]) -> dict[str, str]:
    """Nanoseconds for each pixel and group."""
    return {"minimum_ns_per_unit": f"{min(times) * 1e9 / math.prod(size[:4]):.3f}"}
