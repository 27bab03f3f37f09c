"""`hf-models benchmark models`: whole classifiers with random weights, beside what users would run instead."""

import itertools
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from hf_models.errors import InputError

from .model_entries import MODELS
from .peers import check_agreement
from .results import MODELS as FORMAT
from .results import merge_results
from .timing import DTYPES, check_choice, check_device, conditions, interleave, milliseconds, seconds, thread_count

IMAGE_SIZE = 224


def benchmark_models(
    models: Sequence[str] | None = None,
    batch_sizes: Sequence[int] | None = None,
    dtypes: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    rounds: int = 10,
    device: str = "cpu",
    results: Path | None = None,
) -> list[dict[str, str]]:
    """Measure in inference mode, eager, and keep what was measured after each batch size.

    Args:
        models: Keys of `MODELS`; `None` for all that can be built here.
        batch_sizes: 1 and 8 by default.
        dtypes: Keys of `DTYPES`; float32 by default.
        threads: Numbers of threads to measure with, one after the other; 1 by default.
        results: CSV file to merge the rows into.

    Returns:
        The rows, as in the file.

    Raises:
        InputError: There is no such model, dtype or device, a model cannot be built, or `results` cannot be used.
    """
    batch_sizes, dtypes, threads = batch_sizes or [1, 8], dtypes or ["float32"], threads or [1]
    check_choice("model", models or [], MODELS)
    check_choice("dtype", dtypes, DTYPES)
    check_device(device)
    if results:
        merge_results(results, [], FORMAT)  # fails now, not after the first measurement
    about = conditions(device)
    with torch.inference_mode():
        built = {name: model.to(device) for name, model in _build(models).items()}
        _check_logits(built, device)
        return _measure(built, batch_sizes, dtypes, threads, rounds, device, results, about)


def _build(models: Sequence[str] | None) -> dict[str, nn.Module]:
    built = {}
    for name in models or MODELS:
        try:
            built[name] = MODELS[name].build()
        except InputError as error:
            if models:
                raise
            print(f"{name} is left out: {error}", file=sys.stderr)
    return built


def _check_logits(built: dict[str, nn.Module], device: str) -> None:
    images = _images(1, device)
    logits = {}
    for name in built:
        original = MODELS[name].original
        if original in built:
            for key in {name, original} - logits.keys():
                logits[key] = _logits(built[key](images))
            check_agreement(name, logits[name], logits[original])


def _measure(built, batch_sizes, dtypes, threads, rounds, device, results, about) -> list[dict[str, str]]:
    cells = list(itertools.product(dtypes, threads, batch_sizes))
    measured = []
    with tqdm(total=len(cells) * rounds, disable=None) as bar:
        for dtype, count, batch_size in cells:
            bar.set_description(f"{dtype}, {count} thread(s), batch {batch_size}")
            images = _images(batch_size, device).to(DTYPES[dtype])
            runs = {
                # weights are random, so it does not matter that float32 after bfloat16 has lost some digits
                name: partial(seconds, partial(model.to(DTYPES[dtype]), images), device)
                for name, model in built.items()
            }
            with thread_count(count):
                times = interleave(runs, rounds, bar.update)
            what = {"batch_size": str(batch_size), "dtype": dtype, "threads": str(count)}
            speeds = {name: milliseconds(values) for name, values in times.items()}
            rows = [
                {"model": name, **what, **speed, **_images_per_second(speed, batch_size), **about}
                for name, speed in speeds.items()
            ]
            measured += rows
            if results:
                merge_results(results, rows, FORMAT)
    return measured


def _images_per_second(speed: dict[str, str], batch_size: int) -> dict[str, str]:
    return {
        "images_per_second": f"{batch_size / float(speed['minimum_ms']) * 1e3:.3f}",
        "median_images_per_second": f"{batch_size / float(speed['median_ms']) * 1e3:.3f}",
    }


def _images(batch_size: int, device: str) -> torch.Tensor:
    """(batch_size, 3, IMAGE_SIZE, IMAGE_SIZE), channels last."""
    images = torch.randn(batch_size, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    return images.to(device, memory_format=torch.channels_last)


def _logits(output) -> torch.Tensor:
    return getattr(output, "logits", output)
