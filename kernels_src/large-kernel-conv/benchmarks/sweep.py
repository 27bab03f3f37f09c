"""Where the kernel is faster than PyTorch's convolution: the measurements behind the rule of `_rule.py`.

    export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296
    python sweep.py VARIANT [--results sweep.csv] [--seconds 0.05]

VARIANT is a build of this kernel. For each of the shapes below, milliseconds on one thread, the least of many
interleaved rounds, from an input in each of two memory layouts:

- `operator`: the compiled operator;
- `function`: the public function, which follows the rule;
- `pytorch`: F.conv2d;
- `converted`: conversion of the input to the other layout, F.conv2d, and conversion of its output back.

With the layout given, PyTorch's best is the lesser of the last two: output and input have that layout, as with the
function. With the layout free to choose, it is F.conv2d in its better layout, against the function in its own.

A shape where the function is slower than `SUSPECT` of PyTorch's best, with the layout given, is measured again and
longer, up to `REPEATS` times; of all times the least counts, for everything that is compared.

F.conv2d in (N, C, H, W) layout above 13x13, where it takes some fifty times as long as channels-last, is timed only
where that is not: with less than 16 channels in bfloat16, where channels-last takes minutes.

Each shape is written at once. What the file has of the same kernel, processor and PyTorch is not measured again.
"""

import argparse
import csv
import datetime
import itertools
import platform
import random
import sys
import time
from pathlib import Path

import torch
from kernels import get_local_kernel
from torch.nn import functional as F

RESULTS = Path(__file__).with_suffix(".csv")
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
LAYOUTS = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = (torch.float32, torch.bfloat16)
SHAPE = ("dtype", "batch", "channels", "height", "width", "kernel_size")
TIMES = tuple(f"{what}_{layout}" for what in ("operator", "function", "pytorch", "converted") for layout in LAYOUTS)
CONDITIONS = ("device", "kernel", "torch")
COLUMNS = (*SHAPE, *TIMES, *CONDITIONS, "date")
SLOWER = 0.95  # of PyTorch's speed: the shapes that count as slower
SUSPECT = 0.97
REPEATS = 3


def speeds(row):
    """PyTorch's best time over that of the function, from an input in each layout."""
    return {
        layout: _best(row, f"pytorch_{layout}", f"converted_{layout}") / row[f"function_{layout}"]
        for layout in LAYOUTS
    }


def speed_in_best_layouts(row):
    """The same where the layout is free to choose, for both."""
    return _best(row, *(f"pytorch_{layout}" for layout in LAYOUTS)) / _best(
        row, *(f"function_{layout}" for layout in LAYOUTS)
    )


def _best(row, *columns):
    return min(row[column] for column in columns if row[column] is not None)


def summary(path=RESULTS):
    """What the measurements say, as Markdown."""
    rows = read(path)
    given = [speed for row in rows for speed in speeds(row).values()]
    free = [speed_in_best_layouts(row) for row in rows]
    device, kernel, version, date = (", ".join(sorted({row[name] for row in rows})) for name in (*CONDITIONS, "date"))
    return (
        f"{len(rows)} shapes, float32 and bfloat16, one thread ({device}; torch {version}, {kernel}, {date}):\n\n"
        "- Where input and output must have a given memory layout, the public function is at least "
        f"{min(given):.2f}x as fast as PyTorch's best, which may convert to the other layout and back. It is less "
        f"than {SLOWER}x as fast in {_count(given)} of {len(given)} cases.\n"
        f"- Where both may choose their layout, it is at least {min(free):.2f}x as fast. It is less than {SLOWER}x as "
        f"fast in {_count(free)} of {len(free)} cases.\n"
    )


def _count(speeds):
    return sum(speed < SLOWER for speed in speeds)


def read(path):
    """The rows of a file, their times as numbers and `None` where nothing was timed."""
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row | {name: float(row[name]) if row[name] else None for name in TIMES} for row in rows]


def write(path, rows):
    """The file is whole at every moment."""
    beside = path.with_suffix(".part")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {name: f"{row[name]:.4f}" for name in TIMES if row[name] is not None})
    beside.replace(path)


def milliseconds(functions, seconds):
    """The least time of each function; they take turns in random order, as what ran before has filled the caches."""
    best = dict.fromkeys(functions, float("inf"))
    end = time.perf_counter() + seconds * len(functions)
    for rounds in itertools.count():
        if rounds >= 3 and time.perf_counter() > end:
            return best
        for name, function in random.sample(list(functions.items()), len(functions)):
            best[name] = min(best[name], _milliseconds(function))


def _milliseconds(function):
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def measure(kernel, dtype, batch, channels, height, width, kernel_size, seconds):
    """The times of one shape: the columns `TIMES`."""
    inputs = {
        layout: torch.randn(batch, channels, height, width).to(dtype, memory_format=memory_format)
        for layout, memory_format in LAYOUTS.items()
    }
    weight, bias = torch.randn(channels, 1, kernel_size, kernel_size).to(dtype), torch.randn(channels).to(dtype)
    operator = sys.modules[f"{kernel.__name__}._ops"].ops.depthwise_conv2d_forward

    def pytorch(input):
        return F.conv2d(input, weight, bias, padding=kernel_size // 2, groups=channels)

    large, odd = kernel_size > 13, channels < 16 and dtype == torch.bfloat16
    left_out = {"channels_first": large and not odd, "channels_last": large and odd}
    functions = {}
    for layout, input in inputs.items():
        functions[f"operator_{layout}"] = lambda x=input: operator(x, weight, bias)
        functions[f"function_{layout}"] = lambda x=input: kernel.depthwise_conv2d(x, weight, bias)
        if not left_out[layout]:
            functions[f"pytorch_{layout}"] = lambda x=input: pytorch(x)
            (other,) = LAYOUTS.keys() - {layout}
            functions[f"converted_{other}"] = lambda x=inputs[other], form=LAYOUTS[layout], back=LAYOUTS[other]: (
                pytorch(x.contiguous(memory_format=form)).contiguous(memory_format=back)
            )
    return dict.fromkeys(TIMES) | milliseconds(functions, seconds)


def measure_until_sure(*arguments, seconds):
    """As [`measure`], again where the function comes out as slower."""
    times = measure(*arguments, seconds)
    for _ in range(REPEATS):
        if min(speeds(times).values()) >= SUSPECT:
            break
        again = measure(*arguments, 4 * seconds)
        times = {name: min(filter(None, (times[name], again[name])), default=None) for name in TIMES}
    return times


def processor():
    """Its name, where Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", type=Path)
    parser.add_argument("--results", type=Path, default=RESULTS, help="sweep.csv beside this file by default")
    parser.add_argument("--seconds", type=float, default=0.05, help="for each implementation of each shape")
    arguments = parser.parse_args()
    kernel = get_local_kernel(arguments.variant.resolve())
    torch.set_num_threads(1)
    about = dict(zip(CONDITIONS, (processor(), kernel.__name__, torch.__version__), strict=True))
    try:
        rows = {tuple(row[name] for name in SHAPE): row for row in read(arguments.results)}
    except FileNotFoundError:
        rows = {}
    except (KeyError, TypeError, ValueError):
        parser.error(f"{arguments.results}: not a results file of this script. Name another, or move it.")
    shapes = list(itertools.product(KERNEL_SIZES, MAPS, BATCHES, DTYPES))
    with torch.inference_mode():
        for number, (kernel_size, size, batch, dtype) in enumerate(shapes, 1):
            shape = tuple(map(str, (str(dtype)[6:], batch, *size, kernel_size)))
            if shape in rows and rows[shape].items() >= about.items():
                continue
            times = measure_until_sure(kernel, dtype, batch, *size, kernel_size, seconds=arguments.seconds)
            today = {"date": datetime.date.today().isoformat()}
            rows[shape] = dict(zip(SHAPE, shape, strict=True)) | times | about | today
            write(arguments.results, rows.values())
            print(f"\r{number}/{len(shapes)}", end="", file=sys.stderr)
    print(summary(arguments.results), end="")


if __name__ == "__main__":
    main()
