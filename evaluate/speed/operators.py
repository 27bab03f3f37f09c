"""`hf-models benchmark ops`: an operator with a compiled kernel beside its peers."""

import itertools
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from hf_models.inference.device import choose_device
from hf_models.inference.loading import DTYPES

from ..machine import check_choice
from ..results import OPERATORS as FORMAT
from ..results import merge_results, rows_under
from .attention_operator import DEFORMABLE_ATTENTION
from .deformable_operator import DEFORMABLE_CONV
from .dense_conv_operator import WINOGRAD_CONV
from .implementations import Implementation, Operator, Size, check_agreement
from .large_kernel_operator import LARGE_KERNEL_CONV
from .nms_operator import NMS
from .roi_align_operator import ROI_ALIGN
from .timing import conditions, interleave, milliseconds, seconds, thread_count

OPERATORS = {
    "deformable-conv": DEFORMABLE_CONV,
    "large-kernel-conv": LARGE_KERNEL_CONV,
    "winograd-conv": WINOGRAD_CONV,
    "deformable-attention": DEFORMABLE_ATTENTION,
    "roi-align": ROI_ALIGN,
    "nms": NMS,
}


def benchmark_operator(
    name: str,
    shapes: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    batch_size: int | None = None,
    rounds: int = 20,
    limit: float = 3.0,
    device: str | None = None,
    backward: bool = True,
    results: Path | None = None,
    resume: bool = False,
) -> list[dict[str, str]]:
    """Measure, and keep what was measured after each case.

    Args:
        name: Key of `OPERATORS`.
        shapes: Names of the operator's shapes; all that suit the device by default.
        dtypes: Keys of `DTYPES`; float32 by default.
        threads: Numbers of threads to measure with, one after the other; 1 by default.
        batch_size: Instead of the shapes' own.
        rounds: How often each implementation is timed, if that takes no more than `limit` seconds.
        backward: Whether to time the backward passes too.
        device: "cpu" or "cuda"; by default the GPU where there is one.
        results: CSV file to merge the rows into.
        resume: Leave out what that file has of today, measured under the same conditions.

    Returns:
        The rows, as in the file.

    Raises:
        InputError: There is no such operator, shape, dtype or device, or `results` cannot be used.
    """
    check_choice("operator", [name], OPERATORS)
    operator = OPERATORS[name]
    device = choose_device(device)
    known = operator.shapes | operator.large_shapes
    shapes = shapes or list(operator.shapes if device == "cpu" else known)
    dtypes, threads = dtypes or ["float32"], threads or [1]
    check_choice("shape", shapes, known)
    check_choice("dtype", dtypes, DTYPES)
    if results:
        merge_results(results, [], FORMAT)  # fails now, not after the first measurement
    about = conditions(device, [operator.kernel])
    if notice := operator.missing(device):
        print(notice, file=sys.stderr)
    kept = rows_under(results, about, FORMAT) if resume and results else []
    directions = ("forward", "backward") if backward and operator.gradients else ("forward",)
    cells = list(itertools.product(threads, shapes, dtypes, directions))
    measured = []
    with tqdm(total=len(cells) * rounds, disable=None) as bar:
        for count, shape, dtype, direction in cells:
            bar.set_description(f"{shape} {dtype} {direction}, {count} thread(s)")
            size = (batch_size or known[shape][0], *known[shape][1:])
            what = {"operator": name, "shape": shape, "batch_size": str(size[0]), "dtype": dtype}
            what |= {"direction": direction, "threads": str(count), "size": operator.size_format.format(*size)}
            rows = [row for row in kept if row.items() >= what.items()]
            if rows:
                bar.update(rounds)
            else:
                with thread_count(count):
                    times = _times(operator, size, DTYPES[dtype], direction, rounds, limit, device, bar.update)
                rows = [
                    {**what, "implementation": implementation, **milliseconds(values), **about}
                    | {"minimum_ns_per_unit": f"{min(values) * 1e9 / operator.units(size):.3f}"}
                    for implementation, values in times.items()
                ]
                if results:
                    merge_results(results, rows, FORMAT)
            measured += rows
    return measured


def _times(operator: Operator, size: Size, dtype, direction, rounds, limit, device, advance) -> dict[str, list[float]]:
    """Implementation -> seconds of each round; checks first that the results agree."""
    torch.manual_seed(0)
    candidates = operator.implementations(size, dtype, device)
    prepare = _forward
    if direction == "backward":
        prepare = partial(_backward, gradients=operator.gradients)
        candidates = [candidate for candidate in candidates if candidate.has_gradient]
    exact = Implementation(
        "expected", operator.expected(size), tuple(tensor.float() for tensor in candidates[0].inputs)
    )
    with torch.inference_mode(direction == "forward"):
        expected, _ = prepare(exact, device)
        runs = {}
        for candidate in candidates:
            results, runs[candidate.name] = prepare(candidate, device)
            if candidate.same_result:
                for result, right in zip(results, expected, strict=True):
                    check_agreement(f"{candidate.name}, {direction}", result, right)
        return interleave(runs, rounds, limit, advance)


def _forward(candidate: Implementation, device: str):
    """The output, in a list, and what times a pass."""
    run = partial(candidate.function, *candidate.inputs)
    return [run()], partial(seconds, run, device)


def _backward(candidate: Implementation, device: str, gradients: int):
    """The gradients of the first inputs, and what times a backward pass alone, of all gradients."""
    inputs = [tensor.detach().requires_grad_() for tensor in candidate.inputs]
    out = candidate.function(*inputs)
    noise = torch.randn(out.shape, device=device, generator=torch.Generator(device).manual_seed(1))
    grad_output = torch.empty_like(out).copy_(noise)  # in the memory layout of the output

    def run():
        out = candidate.function(*inputs)
        return seconds(lambda: torch.autograd.grad(out, inputs, grad_output), device)

    return torch.autograd.grad(out, inputs, grad_output)[:gradients], run
