"""Markdown tables of the benchmarks of whole models, rendered from their CSV files.

Ratios are stated as in `tables.py`, and only between models that took turns.
"""

from collections.abc import Callable
from pathlib import Path

from ..results import DETECTORS, FOLDER, MODELS, read_results
from .adopted_tables import render_adopted
from .cells import (
    Row,
    cases,
    fastest,
    filled,
    images_of,
    images_ratio,
    peak_of,
    precision_of,
    speed_of,
    taking_turns,
    title,
)
from .model_entries import MODELS as ENTRIES
from .modes import COMPILED, MODES
from .tables import NOT_MEASURED, Rows, as_fast_as, markdown, number, sections

ORIGINAL = "replknet-31b-original"  # it and the models measured beside it have a table of their own
CONVNEXT = ("convnext-t", "convnext-t-nchw")  # the faster of the two is the peer
RUNTIMES = {"PyTorch": ("eager", *COMPILED), "onnxruntime": ("onnxruntime", "onnxruntime-int8")}
RUNTIMES |= {"OpenVINO": ("openvino", "openvino-int8")}


def render_models(rows: Rows) -> str:
    """All tables for which there are rows."""
    return "\n".join(filter(None, (render(rows) for render in TABLES.values()))) or NOT_MEASURED


def models_table(name: str, path: Path = FOLDER / "models.csv") -> str:
    """One of the tables of models.

    Args:
        name: Key of `TABLES`.
    """
    return TABLES[name](read_results(path, MODELS)) or NOT_MEASURED


def detectors_table(path: Path = FOLDER / "detectors.csv") -> str:
    """A row for each detector, dtype and number of threads."""
    return render_detectors(read_results(path, DETECTORS))


def render_detectors(rows: Rows) -> str:
    """As [`detectors_table`], from rows."""
    return sections(rows, (), _detectors_section) or NOT_MEASURED


def _eager(rows: Rows) -> str:
    """A table for each dtype, number of threads and size of images, with a row for each model and batch size."""
    rows = [row for row in rows if row["mode"] == "eager"]
    rows = [row for row in rows if not _has_own_table(row["model"]) and not _is_shallow(row["model"])]
    return sections(rows, ("dtype", "threads", "image_size"), _eager_section)


def _eager_section(rows: Rows) -> str:
    table = [["model", "batch", "images/s", "median", "peak MB"]]
    table[0] += map(as_fast_as, ("ConvNeXt-T", "Swin-T", "the original"))
    for cell in taking_turns(rows):
        for (name, _, dtype), row in cell.items():
            compared = CONVNEXT, ("swin-t",), (_original(name),)
            ratios = [
                "" if name in peers else images_ratio(row, fastest(cell, peers, dtype=dtype)) for peers in compared
            ]
            table.append([title(name), row["batch_size"], *speed_of(row), peak_of(row), *ratios])
    return filled(table, text_columns=1)


def _originals(rows: Rows) -> str:
    """RepLKNet-31B beside its original: a row for each size of images, batch size, dtype and number of threads."""
    rows = [row for row in rows if row["mode"] == "eager" and _has_own_table(row["model"])]
    return sections(rows, (), _originals_section)


def _originals_section(rows: Rows) -> str:
    others = [name for name in dict.fromkeys(row["model"] for row in rows) if name != ORIGINAL]
    table = [["image", "batch", "dtype", "threads", title(ORIGINAL)]]
    table[0] += [f"{title(name)} ({as_fast_as('the original')})" for name in others]
    for cell in taking_turns(rows):
        for dtype in dict.fromkeys(dtype for _, _, dtype in cell):
            measured = [cell.get((name, "eager", dtype)) for name in (ORIGINAL, *others)]
            first = next(filter(None, measured))
            ratios = ["", *(images_ratio(row, measured[0]) for row in measured[1:])]
            cells = [
                f"{images_of(row)} ({times})" if times else images_of(row)
                for row, times in zip(measured, ratios, strict=True)
            ]
            table.append([first["image_size"], first["batch_size"], dtype, first["threads"], *cells])
    return markdown(table, text_columns=0)


def _compiled(rows: Rows) -> str:
    """What torch.compile gains: a row for each model and case in which it was tried."""
    return _by_image(rows, lambda row: row["mode"] in COMPILED, _compiled_section)


def _compiled_section(rows: Rows) -> str:
    table = [["model", "dtype", "threads", "batch", "eager, images/s"]]
    table[0] += [f"{MODES[mode].title}: {as_fast_as('eager')}" for mode in COMPILED]
    for name, dtype, case, cell in cases(rows):
        modes = {mode: cell.get((name, mode, dtype)) for mode in ("eager", *COMPILED)}
        if any(modes[mode] for mode in COMPILED):
            ratios = [images_ratio(modes[mode], modes["eager"]) for mode in COMPILED]
            table.append([title(name), dtype, *case, images_of(modes["eager"]), *ratios])
    return filled(table, text_columns=2)


def _runtimes(rows: Rows) -> str:
    """Where other runtimes took part: a table for each number of threads, with a row for each way to run a model."""
    of_others = {mode for runtime in ("onnxruntime", "OpenVINO") for mode in RUNTIMES[runtime]}
    cells = [cell for cell in taking_turns(rows) if any(mode in of_others for _, mode, _ in cell)]
    rows = [row for cell in cells for row in cell.values() if row["mode"] != "baseline"]
    return sections(rows, ("threads", "image_size"), _runtimes_section)


def _runtimes_section(rows: Rows) -> str:
    table = [["model", "run by", "precision", "batch", "images/s", "median", "peak MB"]]
    table[0] += [as_fast_as(f"ConvNeXt-T in {runtime}") for runtime in RUNTIMES]
    table[0] += [as_fast_as("itself in onnxruntime")]
    for cell in taking_turns(rows):
        for (name, mode, _), row in cell.items():
            peers = [fastest(cell, CONVNEXT, modes, precision=precision_of(row)) for modes in RUNTIMES.values()]
            peers.append(fastest(cell, (name,), RUNTIMES["onnxruntime"], precision=precision_of(row)))
            ratios = ["" if row is peer else images_ratio(row, peer) for peer in peers]
            about = [title(name), MODES[mode].title, precision_of(row, rest=True), row["batch_size"]]
            table.append([*about, *speed_of(row), peak_of(row), *ratios])
    return filled(table, text_columns=3)


def _int8(rows: Rows) -> str:
    """Models of this package in 8 bits: a row for each model and case."""
    return _by_image(rows, lambda row: row["mode"] == "int8", _int8_section)


def _int8_section(rows: Rows) -> str:
    table = [["model", "the rest in", "threads", "batch", "images/s", "median", "peak MB"]]
    table[0] += [as_fast_as(f"the original in {dtype}") for dtype in ("float32", "bfloat16")]
    table[0] += [as_fast_as("the baseline in bfloat16")]
    for name, dtype, case, cell in cases(rows):
        if row := cell.get((name, "int8", dtype)):
            originals = ("eager", "float32"), ("eager", "bfloat16"), ("baseline", "bfloat16")
            ratios = [images_ratio(row, cell.get((name, *original))) for original in originals]
            table.append([title(name), dtype, *case, *speed_of(row), peak_of(row), *ratios])
    return filled(table, text_columns=2)


def _baseline(rows: Rows) -> str:
    """Models beside themselves in another version of this package."""
    return _by_image(rows, lambda row: row["mode"] == "baseline", _baseline_section)


def _baseline_section(rows: Rows) -> str:
    table = [["model", "dtype", "threads", "batch", "images/s", as_fast_as("the baseline"), "peak MB", "its peak MB"]]
    for name, dtype, case, cell in cases(rows):
        ours, theirs = (cell.get((name, mode, dtype)) for mode in ("eager", "baseline"))
        if ours and theirs:
            cells = [images_of(ours), images_ratio(ours, theirs), peak_of(ours), peak_of(theirs)]
            table.append([title(name), dtype, *case, *cells])
    return filled(table, text_columns=2)


def _detectors_section(rows: Rows) -> str:
    table = [["model", "image", "dtype", "threads", "whole, s", "median, s", "backbone, s", "after it", "peak MB"]]
    for row in rows:
        whole, median, backbone = (
            float(row[column]) / 1e3 for column in ("minimum_ms", "median_ms", "backbone_minimum_ms")
        )
        times = [number(whole), number(median), number(backbone), f"{1 - backbone / whole:.1%}"]
        about = [row[column] for column in ("model", "image", "dtype", "threads")]
        table.append([*about, *times, peak_of(row)])
    return markdown(table, text_columns=3)


TABLES: dict[str, Callable[[Rows], str]] = {
    "models": _eager,
    "RepLKNet-31B": _originals,
    "compiled models": _compiled,
    "runtimes": _runtimes,
    "8 bits": _int8,
    "versions": _baseline,
    "adopted layers": render_adopted,
}


def _by_image(rows: Rows, wanted: Callable[[Row], bool], render: Callable[[Rows], str]) -> str:
    """A part for each size of images, of the cells in which some row is wanted."""
    cells = [cell for cell in taking_turns(rows) if any(map(wanted, cell.values()))]
    return sections([row for cell in cells for row in cell.values()], ("image_size",), render)


def _has_own_table(model: str) -> bool:
    return ORIGINAL in (model, _original(model))


def _is_shallow(model: str) -> bool:
    return model in ENTRIES and not ENTRIES[model].is_default


def _original(model: str) -> str | None:
    return ENTRIES[model].original if model in ENTRIES else None
