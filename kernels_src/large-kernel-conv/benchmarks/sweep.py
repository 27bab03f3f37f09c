"""Where the kernel is faster than PyTorch's convolution: the measurements behind the rule of `_rule.py`.

    python sweep.py VARIANT sweep.csv [--seconds 0.05]

VARIANT is a build of this kernel. For each of the shapes below, milliseconds (the least of many interleaved rounds, on
one thread) of the operator, of the public function (which follows the rule), and of F.conv2d; each in both layouts.
F.conv2d is left out where it takes some fifty times as long or more: above 13x13 in (N, C, H, W) layout, and with less
than 16 channels in bfloat16.
"""

import argparse
import csv
import itertools
import random
import sys
import time
from pathlib import Path

import torch
from kernels import get_local_kernel
from torch.nn import functional as F

MAPS = [  # channels, height, width
    (64, 56, 56),
    (128, 56, 56),
    (256, 28, 28),
    (512, 14, 14),
    (1024, 7, 7),
    (96, 64, 80),
    (24, 48, 48),
    (130, 33, 21),
    (5, 40, 40),
    (384, 12, 12),
]
KERNEL_SIZES = (3, 5, 7, 9, 11, 13, 15, 19, 23, 27, 31, 51)
BATCHES = (1, 8)
LAYOUTS = ("channels_first", "channels_last")
DTYPES = (torch.float32, torch.bfloat16)


def milliseconds(functions, seconds):
    """The least time of each function; they take turns in random order, as what ran before has filled the caches."""
    best = dict.fromkeys(functions, float("inf"))
    end = time.perf_counter() + seconds * len(functions)
    for rounds in itertools.count():
        if rounds >= 3 and time.perf_counter() > end:
            return {name: 1e3 * least for name, least in best.items()}
        for name, function in random.sample(list(functions.items()), len(functions)):
            start = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - start)


def measure(kernel, dtype, batch, channels, height, width, kernel_size, seconds):
    first = torch.randn(batch, channels, height, width).to(dtype)
    last = first.to(memory_format=torch.channels_last)
    weight, bias = torch.randn(channels, 1, kernel_size, kernel_size).to(dtype), torch.randn(channels).to(dtype)
    operator = sys.modules[f"{kernel.__name__}._ops"].ops.depthwise_conv2d_forward
    functions = {}
    for layout, input in (("channels_first", first), ("channels_last", last)):
        functions[f"operator_{layout}"] = lambda x=input: operator(x, weight, bias)
        functions[f"function_{layout}"] = lambda x=input: kernel.depthwise_conv2d(x, weight, bias)
        if kernel_size <= 13 or (layout == "channels_last" and (channels >= 16 or dtype == torch.float32)):
            functions[f"pytorch_{layout}"] = lambda x=input: F.conv2d(
                x, weight, bias, padding=kernel_size // 2, groups=channels
            )
    return milliseconds(functions, seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--seconds", type=float, default=0.05, help="for each implementation of each shape")
    arguments = parser.parse_args()
    kernel = get_local_kernel(arguments.variant.resolve())
    torch.set_num_threads(1)
    shape_names = ("dtype", "batch", "channels", "height", "width", "kernel_size")
    time_names = [f"{what}_{layout}" for what in ("operator", "function", "pytorch") for layout in LAYOUTS]
    with arguments.results.open("w", newline="") as file, torch.inference_mode():
        writer = csv.DictWriter(file, (*shape_names, *time_names))
        writer.writeheader()
        for kernel_size, size, batch, dtype in itertools.product(KERNEL_SIZES, MAPS, BATCHES, DTYPES):
            times = measure(kernel, dtype, batch, *size, kernel_size, arguments.seconds)
            shape = dict(zip(shape_names, (str(dtype)[6:], batch, *size, kernel_size), strict=True))
            writer.writerow(shape | {name: f"{value:.4f}" for name, value in times.items()})
            file.flush()


if __name__ == "__main__":
    main()
