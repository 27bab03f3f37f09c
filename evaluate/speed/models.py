"""`hf-models benchmark models`: whole classifiers with random weights, beside what users would run instead."""

import datetime
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from hf_models.errors import InputError
from hf_models.inference.device import choose_device
from hf_models.inference.loading import DTYPES

from ..machine import check_choice
from ..results import MODELS as FORMAT
from ..results import merge_results, rows_under
from .contestants import Contestant, buildable, contestants
from .implementations import check_agreement
from .model_entries import MODELS
from .model_files import Export, ModelFiles
from .modes import MODES
from .timing import conditions, interleave, milliseconds
from .turns import Worker
from .worker import build_id

Rows = list[dict[str, str]]


def benchmark_models(
    export: Export,
    models: Sequence[str] | None = None,
    modes: Sequence[str] | None = None,
    image_sizes: Sequence[int] | None = None,
    batch_sizes: Sequence[int] | None = None,
    dtypes: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    rounds: int = 10,
    limit: float = 10.0,
    device: str | None = None,
    baseline: Path | None = None,
    results: Path | None = None,
    resume: bool = False,
) -> Rows:
    """Measure time and peak memory in inference mode, and keep what was measured after each case.

    In a case all contestants take turns, each in a process of its own. A case is one size of images, number of
    threads and batch size.

    Args:
        export: See [`ModelFiles`].
        models: Keys of `MODELS`, each in all `modes`, or `KEY:MODE`; `None` for all that can be built here.
        modes: Keys of `MODES`; eager by default.
        image_sizes: Pixels of a side; 224 by default.
        batch_sizes: 1 and 8 by default.
        dtypes: Keys of `DTYPES`; float32 by default.
        threads: Numbers of threads to measure with, one after the other; 1 by default.
        rounds: How often each contestant is timed, if that takes no more than `limit` seconds.
        device: "cpu" or "cuda"; by default the GPU where there is one.
        baseline: Python of an environment with another version of this package, which takes part too.
        results: CSV file to merge the rows into.
        resume: Leave out the cases that this file has of the same contestants, measured under the same conditions.

    Returns:
        The rows, as in the file.

    Raises:
        InputError: There is no such model, mode, dtype or device, a model cannot be built or does not take images of
            a size, the baseline cannot be run, or `results` cannot be used.
    """
    dtypes, modes = dtypes or ["float32"], list(modes or ["eager"])
    if baseline:
        modes.append("baseline")
    pairs = [pair.partition(":")[::2] for pair in models or []]
    check_choice("model", [name for name, _ in pairs], MODELS)
    check_choice("mode", [*modes, *(mode for _, mode in pairs if mode)], MODES)
    check_choice("dtype", dtypes, DTYPES)
    device = choose_device(device)
    if results:
        merge_results(results, [], FORMAT)  # fails now, not after the first measurement
    wanted = [(name, of or mode) for name, of in pairs or [(name, "") for name in buildable()] for mode in modes]
    known = contestants(list(dict.fromkeys(wanted)), dtypes, device)
    if baseline is None and any(who.mode == "baseline" for who in known):
        raise InputError("baseline: which? Name the Python of another version of this package with --baseline.")
    about = conditions(device) | {"build": build_id()}
    of_baseline = about | _about(baseline) if baseline else {}
    everywhere = {who: of_baseline if who.mode == "baseline" else about for who in known}
    cases = list(itertools.product(image_sizes or [224], threads or [1], batch_sizes or [1, 8]))
    measured = []
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=len(cases) * rounds, disable=None) as bar,
        _Turns(ModelFiles(Path(folder), export), device, baseline) as turns,
    ):
        for image_size, count, batch_size in cases:
            case = {"image_size": str(image_size), "batch_size": str(batch_size), "threads": str(count)}
            keys = {who: who.columns | case for who in known}
            rows = _kept(results, [keys[who] | everywhere[who] for who in known]) if results and resume else []
            if rows:
                bar.update(rounds)
            else:
                about_case = f"{image_size} pixels, {count} thread(s), batch {batch_size}"
                bar.set_description(f"{about_case}: preparing")
                peaks = turns.prepare(known, image_size, count, batch_size)
                bar.set_description(about_case)
                now = {"date": datetime.datetime.now().isoformat(" ", "seconds")}  # the same for what took turns
                times = interleave({who: turns.run(who) for who in peaks}, rounds, limit, bar.update)
                rows = [
                    keys[who] | _speed(times[who], batch_size) | {"peak_megabytes": peak} | everywhere[who] | now
                    for who, peak in peaks.items()
                ]
                if results:
                    merge_results(results, rows, FORMAT)
            measured += rows
    return measured


class _Turns:
    """The processes of the contestants, which are started when they are needed first."""

    def __init__(self, files: ModelFiles, device: str, baseline: Path | None):
        self.files, self.device, self.baseline = files, device, baseline
        self.workers: dict[Contestant, Worker] = {}

    def __enter__(self) -> "_Turns":
        return self

    def __exit__(self, *_) -> None:
        for worker in self.workers.values():
            worker.close()

    def prepare(
        self, known: list[Contestant], image_size: int, threads: int, batch_size: int
    ) -> dict[Contestant, str]:
        """Run each twice, check that all compute the same, and return the peaks of memory of those that can be run.

        As many at once as there are processors: starting and compiling take longer than running.
        """
        requests = {
            who: {
                "contestant": who.specification(self.files, self.device),
                "prepare": who.case(self.files, image_size, batch_size, threads),
            }
            for who in known
        }
        for who in known:
            if who not in self.workers:
                self.workers[who] = Worker(str(who), str(self.baseline) if who.mode == "baseline" else sys.executable)
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            answers = dict(zip(known, pool.map(lambda who: self._ask(who, requests[who]), known), strict=True))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        failed = {who: answer for who, answer in answers.items() if isinstance(answer, InputError)}
        if len(failed) == len(known):
            way_out = "Choose another --image-size, or leave out a --model or --mode."
            raise InputError(f"{failed[known[0]]}. Images of {image_size} pixels. {way_out}")
        for error in failed.values():
            print(f"left out: {error}", file=sys.stderr)
        ran = {who: answer for who, answer in answers.items() if who not in failed}
        right = _agreeing({who: torch.tensor(answer["output"]) for who, answer in ran.items()})
        return {who: f"{ran[who]['peak_megabytes']:.1f}" for who in known if who in right}

    def _ask(self, who: Contestant, request: dict) -> dict | InputError:
        try:
            return self.workers[who].ask(**request)
        except InputError as error:  # the others can still be compared
            return error

    def run(self, who: Contestant) -> Callable[[], float]:
        """What runs it once and returns the seconds that it took."""
        return partial(self.workers[who].ask, time="whole")


def _about(baseline: Path) -> dict[str, str]:
    """Which build of this package another Python has."""
    worker = Worker(str(baseline), str(baseline))
    try:
        return worker.ask(about=True)
    finally:
        worker.close()


def _kept(results: Path, wanted: Rows) -> Rows:
    """The rows of a case, if the file has all of them and they took turns; none otherwise."""
    rows = [row for want in wanted for row in rows_under(results, want, FORMAT)]
    return rows if len(rows) == len(wanted) and len({row["date"] for row in rows}) == 1 else []


def _agreeing(outputs: dict[Contestant, torch.Tensor]) -> set[Contestant]:
    """Those whose logits are the ones of the most precise contestant with the same weights; warns of the others."""
    firsts, right = {}, set()
    for who in sorted(outputs, key=lambda who: who.tolerance):
        first = firsts.setdefault(MODELS[who.model].original or who.model, who)
        try:
            check_agreement(str(who), outputs[who], outputs[first], max(who.tolerance, first.tolerance))
            right.add(who)
        except RuntimeError as error:
            print(f"left out: {error}", file=sys.stderr)
    return right


def _speed(times: list[float], batch_size: int) -> dict[str, str]:
    speed = milliseconds(times)
    return speed | {
        "images_per_second": f"{batch_size / float(speed['minimum_ms']) * 1e3:.6g}",
        "median_images_per_second": f"{batch_size / float(speed['median_ms']) * 1e3:.6g}",
    }
