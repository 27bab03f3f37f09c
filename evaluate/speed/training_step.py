"""`hf-models benchmark training`: one step of training whole classifiers, beside ConvNeXt-T."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from ..machine import check_choice
from ..results import FOLDER, TRAINING, merge_results, read_results
from .model_entries import from_timm, from_zoo
from .tables import NOT_MEASURED, markdown
from .timing import conditions, interleave, milliseconds, seconds, thread_count

CHANNELS_LAST = torch.channels_last
DTYPES = {"float32": False, "bfloat16": True}  # -> whether it is autocast: weights are float32
MODELS: dict[str, tuple[str, Callable[[], nn.Module]]] = {  # name -> title, what builds it
    "internimage-t": ("InternImage-T", lambda: from_zoo("internimage_t_1k_224")),
    "flash-internimage-t": ("FlashInternImage-T", lambda: from_zoo("flash_intern_image_t_1k_224")),
    "convnext-t": (
        "ConvNeXt-T (timm), channels-last",
        lambda: from_timm("convnext_tiny").to(memory_format=CHANNELS_LAST),
    ),
    "convnext-t-nchw": ("ConvNeXt-T (timm)", lambda: from_timm("convnext_tiny")),
}
PEERS = ("convnext-t", "convnext-t-nchw")  # the faster one counts


def benchmark_training(
    models: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    batch_size: int = 8,
    image_size: int = 224,
    rounds: int = 5,
    limit: float = 30.0,
    results: Path | None = None,
) -> list[dict[str, str]]:
    """Time forward, backward and AdamW on the CPU. All models take turns in one process.

    Args:
        models: Keys of `MODELS`; all by default.
        dtypes: Keys of `DTYPES`; both by default.
        threads: Numbers of threads to measure with, one after the other; 1 by default.
        batch_size: Images of a step.
        image_size: Pixels of a side.
        rounds: How often each model is timed, if that takes no more than `limit` seconds.
        results: CSV file to merge the rows into, after each dtype and number of threads.

    Returns:
        The rows, as in the file.

    Raises:
        InputError: There is no such model or dtype, a model cannot be built, or `results` cannot be used.
    """
    models, dtypes, threads = models or list(MODELS), dtypes or list(DTYPES), threads or [1]
    check_choice("model", models, MODELS)
    check_choice("dtype", dtypes, DTYPES)
    if results:
        merge_results(results, [], TRAINING)  # fails now, not after the first measurement
    about = conditions("cpu")
    steps = {name: _Step(name, batch_size, image_size) for name in models}
    measured = []
    cases = [(dtype, count) for dtype in dtypes for count in threads]
    with tqdm(total=len(cases) * rounds, disable=None) as bar:
        for dtype, count in cases:
            bar.set_description(f"{dtype}, {count} thread(s)")
            runs = {name: partial(seconds, partial(step, DTYPES[dtype]), "cpu") for name, step in steps.items()}
            with thread_count(count):
                times = interleave(runs, rounds, limit, bar.update)
            what = {"image_size": str(image_size), "batch_size": str(batch_size), "dtype": dtype}
            what |= {"threads": str(count)}
            rows = [{"model": name} | what | milliseconds(took) | about for name, took in times.items()]
            if results:
                merge_results(results, rows, TRAINING)
            measured += rows
    return measured


class _Step:
    """A model, its optimizer and a batch of noise."""

    def __init__(self, name: str, batch_size: int, image_size: int):
        layout = torch.contiguous_format if name.endswith("-nchw") else CHANNELS_LAST
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch_size, 3, image_size, image_size, generator=generator)
        self.images = images.contiguous(memory_format=layout)
        self.labels = torch.randint(1000, (batch_size,), generator=generator)
        self.model = MODELS[name][1]().train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)  # as in Trainer

    def __call__(self, autocast: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = self.model(self.images)
            loss = F.cross_entropy(getattr(output, "logits", output), self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def training_table(path: Path = FOLDER / "training.csv") -> str:
    """A row for each model, dtype and number of threads."""
    return render_training(read_results(path, TRAINING))


def render_training(rows: list[dict[str, str]]) -> str:
    """As [`training_table`], from rows."""
    if not rows:
        return NOT_MEASURED
    table = [["model", "batch", "dtype", "threads", "ms", "time of ConvNeXt-T's"]]
    cases = {}
    for row in rows:
        case = tuple(row[column] for column in TRAINING.keys if column != "model")
        cases.setdefault(case, {})[row["model"]] = row
    for measured in cases.values():
        peers = [float(measured[name]["minimum_ms"]) for name in PEERS if name in measured]
        for name, row in measured.items():
            share = "" if name in PEERS or not peers else f"{float(row['minimum_ms']) / min(peers):.2f}x"
            about = [row[column] for column in ("batch_size", "dtype", "threads")]
            title = MODELS[name][0] if name in MODELS else name
            table.append([title, *about, f"{float(row['minimum_ms']):.0f}", share])
    return f"{_conditions(rows)}\n\n{markdown(table, text_columns=1)}\n"


def _conditions(rows: list[dict[str, str]]) -> str:
    versions = ["; ".join(sorted({row[column] for row in rows})) for column in ("device", "torch", "kernel", "date")]
    return "{}; torch {}, {}, {}".format(*versions)
