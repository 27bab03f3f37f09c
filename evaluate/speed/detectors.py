"""`hf-models benchmark detectors`: whole detectors with random weights, and their backbones alone."""

import datetime
import itertools
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForObjectDetection

from hf_models.inference.device import choose_device
from hf_models.inference.loading import DTYPES
from hf_models.zoo import find_checkpoint, list_models

from ..machine import check_choice
from ..results import DETECTORS as FORMAT
from ..results import merge_results, rows_under
from .model_files import quiet
from .timing import conditions, interleave, milliseconds
from .turns import Worker
from .worker import build_id

DEFAULT = "mask_rcnn_internimage_t_fpn_1x_coco"
HEIGHT, WIDTH = 800, 1333


def benchmark_detectors(
    models: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    rounds: int = 5,
    limit: float = 30.0,
    device: str | None = None,
    results: Path | None = None,
    resume: bool = False,
) -> list[dict[str, str]]:
    """Measure time and peak memory of one image in inference mode, and keep what was measured after each case.

    Args:
        models: Names of detectors in the zoo; Mask R-CNN over InternImage-T by default.
        dtypes: Keys of `DTYPES`; float32 by default.
        threads: Numbers of threads to measure with, one after the other; 1 by default.
        rounds: How often each is timed, if that takes no more than `limit` seconds.
        device: "cpu" or "cuda"; by default the GPU where there is one.
        results: CSV file to merge the rows into.
        resume: Leave out what that file has, measured under the same conditions.

    Returns:
        The rows, as in the file.

    Raises:
        InputError: There is no such detector, dtype or device, it cannot be run, or `results` cannot be used.
    """
    models, dtypes, threads = models or [DEFAULT], dtypes or ["float32"], threads or [1]
    check_choice("detector", models, list_models(task="object-detection"))
    check_choice("dtype", dtypes, DTYPES)
    device = choose_device(device)
    if results:
        merge_results(results, [], FORMAT)  # fails now, not after the first measurement
    about = conditions(device) | {"build": build_id()}
    cases = list(itertools.product(models, dtypes, threads))
    measured = []
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(cases) * rounds, disable=None) as bar:
        for name, dtype, count in cases:
            bar.set_description(f"{name}, {dtype}, {count} thread(s)")
            what = {"model": find_checkpoint(name).title, "image": f"{HEIGHT} x {WIDTH}"}
            what |= {"dtype": dtype, "threads": str(count)}
            rows = rows_under(results, what | about, FORMAT) if results and resume else []
            if rows:
                bar.update(rounds)
            else:
                rows = [
                    what
                    | _measure(_saved(name, dtype, Path(folder)), dtype, count, rounds, limit, device, bar)
                    | about
                ]
                if results:
                    merge_results(results, rows, FORMAT)
            measured += rows
    return measured


def _saved(name: str, dtype: str, folder: Path) -> Path:
    """The detector with random weights, as `save_pretrained` writes it."""
    path = folder / f"{name}-{dtype}"
    if not path.exists():
        torch.manual_seed(0)
        with quiet():
            model = AutoModelForObjectDetection.from_config(find_checkpoint(name).config())
            model.to(DTYPES[dtype]).save_pretrained(path)
    return path


def _measure(
    path: Path, dtype: str, threads: int, rounds: int, limit: float, device: str, bar: tqdm
) -> dict[str, str]:
    """The columns of what came out, and when."""
    contestant = {
        "runtime": "torch",
        "file": str(path),
        "mode": "eager",
        "dtype": dtype,
        "device": device,
        "auto_class": "AutoModelForObjectDetection",
        "channels_last": False,
    }
    padded = [-(-side // 32) * 32 for side in (HEIGHT, WIDTH)]
    case = {"shape": [1, 3, *padded], "threads": threads, "valid": [HEIGHT, WIDTH]}
    worker = Worker(path.name)
    try:
        peak = worker.ask(contestant=contestant, prepare=case)["peak_megabytes"]
        now = datetime.datetime.now().isoformat(" ", "seconds")
        runs = {part: partial(worker.ask, time=part) for part in ("whole", "backbone")}
        times = interleave(runs, rounds, limit, bar.update)
    finally:
        worker.close()
    return milliseconds(times["whole"]) | {
        "backbone_minimum_ms": milliseconds(times["backbone"])["minimum_ms"],
        "peak_megabytes": f"{peak:.1f}",
        "date": now,
    }
