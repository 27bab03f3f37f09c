"""Time the operator beside what PyTorch offers for the same work, interleaved in one process.

    python benchmark.py [--kernel DIR] [--rounds N] [--shapes seed56 ...] [--no-backward] [--output FILE.csv]

Peers: the aggregation written with `grid_sample` (what users without a kernel run) and a depthwise 7x7 convolution
(oneDNN, channels last), which reads and writes as many channels. In each round every implementation runs twice, and
the second run counts: its inputs are where a layer before it would have left them. Each row of the CSV is one shape,
dtype and implementation, with minimum and median over the rounds.

Set OMP_NUM_THREADS before the start, and MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296, without
which the C library returns each large result to the system and a good part of every time is page faults.
"""

import argparse
import csv
import statistics
import sys
import time
from pathlib import Path

import torch
from kernels import get_local_kernel
from torch.nn import functional as F

SHAPES = {  # images, height, width, groups, channels of a group; kernel 3x3, stride 1, padding 1
    "seed56": (8, 56, 56, 4, 32),
    "seed28": (8, 28, 28, 8, 32),
    "seed14": (8, 14, 14, 16, 32),
    "seed7": (8, 7, 7, 32, 32),
    "T56": (8, 56, 56, 4, 16),
    "T28": (8, 28, 28, 8, 16),
    "T14": (8, 14, 14, 16, 16),
    "T7": (8, 7, 7, 32, 16),
    "iso14": (64, 14, 14, 24, 32),
    "hi200": (1, 200, 320, 4, 32),
    "hi128": (1, 128, 128, 4, 32),
}
COLUMNS = ("shape", "dtype", "implementation", "threads", "rounds", "minimum_ms", "median_ms", "minimum_ns_per_unit")


def grid_sample_core(value, offset, weight):
    """The aggregation with grid_sample, in the steps of the published PyTorch cores."""
    batch, height, width, groups, channels = value.shape
    points = torch.arange(3.0) - 1
    x = torch.arange(float(width))[:, None, None] + points.repeat_interleave(3) + offset[..., 0]
    y = torch.arange(float(height))[:, None, None, None] + points.repeat(3) + offset[..., 1]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)  # (N, H, W, G, 9, 2)
    grid = grid.permute(0, 3, 1, 2, 4, 5).reshape(batch * groups, height * width, 9, 2)
    images = value.permute(0, 3, 4, 1, 2).reshape(batch * groups, channels, height, width)
    samples = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weights = weight.permute(0, 3, 1, 2, 4).reshape(batch * groups, 1, height * width, 9)
    summed = (samples * weights).sum(-1)  # (N G, D, H W)
    return summed.view(batch, groups * channels, height, width).permute(0, 2, 3, 1).contiguous()


def forward_runs(kernel, shape, dtype):
    """Name -> function, for one shape and dtype."""
    batch, height, width, groups, channels = shape
    value = torch.randn(shape)
    offset, logits = torch.randn(*shape[:4], 9, 2), torch.randn(*shape[:4], 9)
    weight = logits.softmax(-1)
    image = torch.randn(batch, groups * channels, height, width).to(dtype, memory_format=torch.channels_last)
    depthwise = torch.randn(groups * channels, 1, 7, 7).to(dtype)
    ours = [tensor.to(dtype) for tensor in (value, offset, weight)]
    expected = grid_sample_core(value, offset, weight)
    actual = kernel.deformable_aggregate(*ours, kernel_size=3, padding=1).float()
    # half precision rounds the offsets too, so only the size of the error is checked
    assert (actual - expected).norm() <= (1e-5 if dtype == torch.float32 else 2e-2) * expected.norm()
    runs = {
        "ours": lambda: kernel.deformable_aggregate(*ours, kernel_size=3, padding=1),
        "ours, fused softmax": lambda: kernel.deformable_aggregate(*ours, kernel_size=3, padding=1, softmax=True),
        "depthwise 7x7": lambda: F.conv2d(image, depthwise, padding=3, groups=groups * channels),
    }
    if dtype == torch.float32:
        runs["grid_sample"] = lambda: grid_sample_core(value, offset, weight)
    return runs


def backward_runs(kernel, shape):
    """Name -> function that returns the seconds of a backward pass."""

    def timed(function):
        inputs = [torch.randn(shape), torch.randn(*shape[:4], 9, 2), torch.randn(*shape[:4], 9)]
        inputs = [tensor.requires_grad_() for tensor in inputs]
        gradient = torch.randn(*shape[:3], shape[3] * shape[4])

        def run():
            out = function(*inputs)
            start = time.perf_counter()
            torch.autograd.grad(out, inputs, gradient)
            return time.perf_counter() - start

        return run

    return {
        "ours, backward": timed(lambda *inputs: kernel.deformable_aggregate(*inputs, kernel_size=3, padding=1)),
        "grid_sample, backward": timed(grid_sample_core),
    }


def measure(runs, rounds):
    """Seconds of each run in each round; one after the other, so that all meet the same machine."""
    seconds = {name: [] for name in runs}
    for function in runs.values():
        function()
    for _ in range(rounds):
        for name, function in runs.items():
            function()
            start = time.perf_counter()
            result = function()
            elapsed = time.perf_counter() - start
            seconds[name].append(result if isinstance(result, float) else elapsed)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", type=Path, default=Path(__file__).resolve().parents[1], help="kernel or its build")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-backward", action="store_true")
    parser.add_argument("--output", type=Path, help="CSV file; standard output by default")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    kernel = get_local_kernel(arguments.kernel.absolute())
    print(f"{kernel.cpu_path()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}", file=sys.stderr)
    rows = []
    for name in arguments.shapes:
        shape = SHAPES[name]
        with torch.inference_mode():
            measured = {
                (implementation, dtype): seconds
                for dtype in (torch.float32, torch.bfloat16)
                for implementation, seconds in measure(forward_runs(kernel, shape, dtype), arguments.rounds).items()
            }
        if not arguments.no_backward:
            for implementation, seconds in measure(backward_runs(kernel, shape), arguments.rounds).items():
                measured[implementation, torch.float32] = seconds
        for (implementation, dtype), seconds in measured.items():
            minimum, median = min(seconds) * 1e3, statistics.median(seconds) * 1e3
            per_unit = minimum * 1e6 / (shape[0] * shape[1] * shape[2] * shape[3])
            row = (name, str(dtype).removeprefix("torch."), implementation, torch.get_num_threads(), arguments.rounds)
            rows.append((*row, f"{minimum:.3f}", f"{median:.3f}", f"{per_unit:.1f}"))
            print(f"{name:8} {row[1]:9} {implementation:22} {minimum:9.3f} ms", file=sys.stderr)
    with arguments.output.open("w", newline="") if arguments.output else sys.stdout as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
