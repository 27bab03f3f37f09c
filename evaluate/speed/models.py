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

from ..machine import DTYPES, check_choice, choose_device
from ..results import MODELS as FORMAT
from ..results import merge_results, rows_under
from .implementations import check_agreement
from .model_entries import MODELS
from .timing import conditions, interleave, milliseconds, seconds, thread_count


def benchmark_models(
    models: Sequence[str] | None = None,
    image_sizes: Sequence[int] | None = None,
    batch_sizes: Sequence[int] | None = None,
    dtypes: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    rounds: int = 10,
    limit: float = 10.0,
    device: str | None = None,
    results: Path | None = None,
    resume: bool = False,
) -> list[dict[str, str]]:
    """Measure in inference mode, eager, and keep what was measured after each batch size.

    Args:
        models: Keys of `MODELS`; `None` for all that can be built here.
        image_sizes: Pixels of a side; 224 by default.
        batch_sizes: 1 and 8 by default.
        dtypes: Keys of `DTYPES`; float32 by default.
        threads: Numbers of threads to measure with, one after the other; 1 by default.
        rounds: How often each model is timed, if that takes no more than `limit` seconds.
        device: "cpu" or "cuda"; by default the GPU where there is one.
        results: CSV file to merge the rows into.
        resume: Leave out what that file has of today, measured under the same conditions.

    Returns:
        The rows, as in the file.

    Raises:
        InputError: There is no such model, dtype or device, a model cannot be built or does not take images of a
            size, or `results` cannot be used.
    """
    image_sizes, batch_sizes = image_sizes or [224], batch_sizes or [1, 8]
    dtypes, threads = dtypes or ["float32"], threads or [1]
    check_choice("model", models or [], MODELS)
    check_choice("dtype", dtypes, DTYPES)
    device = choose_device(device)
    if results:
        merge_results(results, [], FORMAT)  # fails now, not after the first measurement
    about = conditions(device)
    kept = rows_under(results, about, FORMAT) if resume and results else []
    cells = list(itertools.product(image_sizes, dtypes, threads, batch_sizes))
    measured = []
    with torch.inference_mode(), tqdm(total=len(cells) * rounds, disable=None) as bar:
        built = {name: model.to(device) for name, model in _build(models).items()}
        for image_size in image_sizes:
            _check_logits(built, image_size, device)
        for image_size, dtype, count, batch_size in cells:
            bar.set_description(f"{image_size} pixels, {dtype}, {count} thread(s), batch {batch_size}")
            what = {"image_size": str(image_size), "batch_size": str(batch_size), "dtype": dtype}
            what |= {"threads": str(count)}
            rows = [row for row in kept if row["model"] in built and row.items() >= what.items()]
            if len(rows) == len(built):
                bar.update(rounds)
            else:
                images = _images(batch_size, image_size, device).to(DTYPES[dtype])
                with thread_count(count):
                    times = _times(built, images, rounds, limit, device, bar.update)
                rows = [_row(name, what, values, batch_size) | about for name, values in times.items()]
                if results:
                    merge_results(results, rows, FORMAT)
            measured += rows
    return measured


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


def _check_logits(built: dict[str, nn.Module], image_size: int, device: str) -> None:
    """Every model takes such images, and gives the same logits for them as its original."""
    images = _images(1, image_size, device)
    logits = {}
    for name, model in built.items():
        try:
            logits[name] = _logits(model(images))
        except AssertionError as error:  # timm's Swin takes the one size that it was built for
            raise InputError(
                f"{name}: does not take images of {image_size} pixels ({str(error).splitlines()[0]}). "
                "Choose another --image-size, or leave it out by naming --models."
            ) from error
    for name in built:
        if MODELS[name].original in built:
            check_agreement(name, logits[name], logits[MODELS[name].original])


def _times(built: dict[str, nn.Module], images: torch.Tensor, rounds, limit, device, advance):
    """Model -> seconds of each round."""
    # weights are random, so it does not matter that float32 after bfloat16 has lost some digits
    runs = {name: partial(seconds, partial(model.to(images.dtype), images), device) for name, model in built.items()}
    return interleave(runs, rounds, limit, advance)


def _row(model: str, what: dict[str, str], times: list[float], batch_size: int) -> dict[str, str]:
    speed = milliseconds(times)
    return {
        "model": model,
        **what,
        **speed,
        "images_per_second": f"{batch_size / float(speed['minimum_ms']) * 1e3:.6g}",
        "median_images_per_second": f"{batch_size / float(speed['median_ms']) * 1e3:.6g}",
    }


def _images(batch_size: int, image_size: int, device: str) -> torch.Tensor:
    """(batch_size, 3, image_size, image_size), channels last."""
    images = torch.randn(batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    return images.to(device, memory_format=torch.channels_last)


def _logits(output) -> torch.Tensor:
    return getattr(output, "logits", output)
