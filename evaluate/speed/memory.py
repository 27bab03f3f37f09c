"""`hf-models benchmark memory`: the peak of one forward pass on a large image, each in a process of its own."""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm
from transformers import ConvNextConfig, PreTrainedConfig, UperNetConfig

from hf_models.errors import InputError
from hf_models.inference.loading import DTYPES
from hf_models.zoo import find_checkpoint

from ..machine import check_choice, machine
from ..results import FOLDER, MEMORY, merge_results, read_results
from . import one_forward
from .tables import NOT_MEASURED, markdown
from .timing import MALLOC

CURRENT = "this version"
STAGES = [f"stage{number}" for number in (1, 2, 3, 4)]


@dataclass(frozen=True)
class Case:
    """A model to measure.

    Args:
        title: For tables.
        loader: See [`one_forward.build`].
        config: What the model is built from; timm's name where timm builds it.
        size: Height and width of the image.
    """

    title: str
    loader: str
    config: str | PreTrainedConfig
    size: tuple[int, int]


def _internimage(name: str) -> PreTrainedConfig:
    config = find_checkpoint(name).config()
    config.out_features = STAGES
    return config


def _cases() -> dict[str, Case]:
    upernet = find_checkpoint("upernet_internimage_t_512_160k_ade20k").config()
    of_convnext = UperNetConfig(backbone_config=ConvNextConfig(out_features=STAGES), num_labels=upernet.num_labels)
    large, wide = (800, 1333), (512, 2048)
    return {
        "internimage-t": Case("InternImage-T", "AutoBackbone", _internimage("internimage_t_1k_224"), large),
        "flash-internimage-t": Case(
            "FlashInternImage-T", "AutoBackbone", _internimage("flash_intern_image_t_1k_224"), large
        ),
        "convnext-t": Case("ConvNeXt-T (timm)", "timm", "convnext_tiny", large),
        "upernet-internimage-t": Case("UperNet, InternImage-T, by `load_segmenter`", "load_segmenter", upernet, wide),
        "upernet-internimage-t-stock": Case(
            "UperNet, InternImage-T, by transformers", "AutoModelForSemanticSegmentation", upernet, wide
        ),
        "upernet-convnext-t": Case(
            "UperNet, ConvNeXt-T, by transformers", "AutoModelForSemanticSegmentation", of_convnext, wide
        ),
    }


CASES = _cases()


def benchmark_memory(
    models: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    python: Path | None = None,
    version: str = CURRENT,
    results: Path | None = None,
) -> list[dict[str, str]]:
    """Measure the peak of one forward on a CPU, one thread, with the C library's thresholds as they are and raised.

    Raised, it keeps what is freed, as the benchmarks of speed have it; see docs/speed.md.

    Args:
        models: Keys of `CASES`; all by default.
        dtypes: Keys of `DTYPES`; float32 and bfloat16 by default.
        python: That of an environment with another version of this package; this one by default.
        version: What the rows call it.
        results: CSV file to merge the rows into, after each model.

    Returns:
        The rows, as in the file.

    Raises:
        InputError: There is no such model or dtype, a process fails, or `results` cannot be used.
    """
    models, dtypes = models or list(CASES), dtypes or ["float32", "bfloat16"]
    check_choice("model", models, CASES)
    check_choice("dtype", dtypes, DTYPES)
    if results:
        merge_results(results, [], MEMORY)  # fails now, not after the first measurement
    about = machine("cpu") | {"version": version} | ({"kernel": "its own"} if python else {})
    rows = []
    for name, dtype, raised in tqdm(list(itertools.product(models, dtypes, (False, True))), disable=None):
        case = CASES[name]
        what = {"model": name, "image": f"{case.size[0]} x {case.size[1]}", "dtype": dtype}
        what |= {"malloc_thresholds": "raised" if raised else "default"}
        before, peak = _measure(name, dtype, raised, python or Path(sys.executable))
        row = what | {"forward_megabytes": f"{peak - before:.1f}", "process_megabytes": f"{peak:.1f}"} | about
        if results:
            merge_results(results, [row], MEMORY)
        rows.append(row)
    return rows


def _measure(name: str, dtype: str, raised: bool, python: Path) -> tuple[float, float]:
    """Megabytes before a forward, and at its peak."""
    case = CASES[name]
    environment = {key: value for key, value in os.environ.items() if key not in MALLOC}
    environment |= dict.fromkeys(MALLOC, str(1 << 32)) if raised else {}
    with tempfile.TemporaryDirectory() as folder:
        if not isinstance(case.config, str):
            case.config.to_json_file(Path(folder) / "config.json", use_diff=False)
        source = case.config if isinstance(case.config, str) else folder
        command = [
            python,
            "-P",
            "-W",
            "ignore",
            one_forward.__file__,
            case.loader,
            source,
            dtype,
            *map(str, case.size),
        ]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
        except OSError as error:
            raise InputError(f"{python}: cannot be run ({error.strerror}). Name a Python.") from None
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise InputError(f"{name}: cannot be measured ({why}).")
    before, peak = map(float, done.stdout.split()[-2:])
    return before, peak


def memory_table(path: Path = FOLDER / "memory.csv") -> str:
    """A row for each model and dtype, with a column for each version that was measured."""
    return render_memory(read_results(path, MEMORY))


def render_memory(rows: list[dict[str, str]]) -> str:
    """As [`memory_table`], from rows."""
    if not rows:
        return NOT_MEASURED
    versions = [CURRENT, *sorted({row["version"] for row in rows} - {CURRENT})]
    table = [["model", "image", "dtype", "thresholds", "forward, MB", "process, MB"]]
    table[0] += [f"of the forward of {version}" for version in versions[1:]]
    cases = {}
    for row in rows:
        case = tuple(row[column] for column in ("model", "image", "dtype", "malloc_thresholds"))
        cases.setdefault(case, {})[row["version"]] = row
    for (name, *about), measured in cases.items():
        peaks = {version: float(row["forward_megabytes"]) for version, row in measured.items()}
        now = measured.get(CURRENT)
        cells = [f"{float(now[column]):.0f}" if now else "" for column in MEMORY.numbers]
        shares = [f"{peaks[CURRENT] / peaks[other]:.2f}x" if now and other in peaks else "" for other in versions[1:]]
        table.append([CASES[name].title if name in CASES else name, *about, *cells, *shares])
    about = ["; ".join(sorted({row[column] for row in rows})) for column in ("device", "torch", "date")]
    return "{}; torch {}, {}; one thread\n\n".format(*about) + f"{markdown(table, text_columns=4)}\n"
