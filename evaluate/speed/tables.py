"""Markdown tables of the benchmarks, rendered from their CSV files.

Every ratio is stated in one way: a column "as fast as X" holds n x, and n below 1 means slower than X.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..results import EXPORTS, FOLDER, MODELS, OPERATORS, read_results

NOT_MEASURED = "Not measured yet.\n"
MODEL_PEERS = {"convnext-t": "ConvNeXt-T", "swin-t": "Swin-T"}
ORIGINAL = "replknet-31b-original"  # it and the models measured beside it have a table of their own
Rows = list[dict[str, str]]


def operators_table(path: Path = FOLDER / "operators.csv", **wanted: str) -> str:
    """A table for each operator, direction, dtype and number of threads, with a row for each shape.

    Args:
        path: The CSV file.
        wanted: Values that columns must have, such as `operator="deformable-conv"`.
    """
    rows = read_results(path, OPERATORS)
    return render_operators([row for row in rows if all(row[column] == value for column, value in wanted.items())])


def models_table(path: Path = FOLDER / "models.csv") -> str:
    """A table for each dtype, number of threads and size of images, with a row for each model and batch size.

    Without the models of [`originals_table`].
    """
    return _models(read_results(path, MODELS)) or NOT_MEASURED


def originals_table(path: Path = FOLDER / "models.csv") -> str:
    """RepLKNet-31B beside its original: a row for each size of images, batch size, dtype and number of threads."""
    return _originals(read_results(path, MODELS)) or NOT_MEASURED


def exports_table(path: Path = FOLDER / "export.csv") -> str:
    """A row for each exported model, batch size and number of threads."""
    return render_exports(read_results(path, EXPORTS))


def render_exports(rows: Rows) -> str:
    """As [`exports_table`], from rows."""
    return _sections(rows, (), _exports_section) or NOT_MEASURED


def render_operators(rows: Rows) -> str:
    """As [`operators_table`], from rows."""
    return _sections(rows, ("operator", "direction", "dtype", "threads"), _operators_section) or NOT_MEASURED


def render_models(rows: Rows) -> str:
    """As [`models_table`] and then [`originals_table`], from rows."""
    return "\n".join(filter(None, (_models(rows), _originals(rows)))) or NOT_MEASURED


def _models(rows: Rows) -> str:
    rows = [row for row in rows if not _has_own_table(row["model"])]
    return _sections(rows, ("dtype", "threads", "image_size"), _models_section)


def _originals(rows: Rows) -> str:
    return _sections([row for row in rows if _has_own_table(row["model"])], (), _originals_section)


def _sections(rows: Rows, keys: Sequence[str], render: Callable[[Rows], str]) -> str:
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in (*keys, "device")), []).append(row)
    sections = []
    for (*values, device), group in groups.items():
        title = ", ".join(_label(key, value) for key, value in zip(keys, values, strict=True))
        versions = ["; ".join(sorted({row[column] for row in group})) for column in ("torch", "kernel", "date")]
        about = f"{device}; torch {', '.join(versions)}"
        sections.append(f"{f'**{title}** ({about})' if title else about}\n\n{render(group)}\n")
    return "\n".join(sections)


def _label(key: str, value: str) -> str:
    units = {"threads": f" thread{'s' * (value != '1')}", "image_size": " pixels"}
    return value + units.get(key, "")


def _operators_section(rows: Rows) -> str:
    from .operators import OPERATORS as KNOWN  # imports the operators

    known = KNOWN.get(rows[0]["operator"])
    others = [name for name in dict.fromkeys(row["implementation"] for row in rows) if name != "ours"]
    table = [["shape", known.size_title if known else "size", "ours, ms", "ns per unit", *map(_as_fast_as, others)]]
    shapes = {}
    for row in rows:
        shapes.setdefault((row["shape"], row["size"]), {})[row["implementation"]] = row
    for shape, measured in shapes.items():
        ours = measured.get("ours")
        speed = [_number(ours[column]) for column in ("minimum_ms", "minimum_ns_per_unit")] if ours else ["", ""]
        ratios = [_ratio(measured.get(name), ours, "minimum_ms") for name in others]
        table.append([*shape, *speed, *ratios])
    return markdown(table, text_columns=2)


def _models_section(rows: Rows) -> str:
    peers = [*MODEL_PEERS.values(), "the original"]
    table = [["model", "batch", "images/s", "median", *map(_as_fast_as, peers)]]
    measured = {(row["model"], row["batch_size"]): row for row in rows}
    for (name, batch_size), row in measured.items():
        compared = [*MODEL_PEERS, _original(name)]
        ratios = [
            "" if peer == name else _ratio(row, measured.get((peer, batch_size)), "images_per_second")
            for peer in compared
        ]
        speed = [_number(row[column]) for column in ("images_per_second", "median_images_per_second")]
        table.append([_title(name), batch_size, *speed, *ratios])
    return markdown(table, text_columns=1)


def _originals_section(rows: Rows) -> str:
    others = [name for name in dict.fromkeys(row["model"] for row in rows) if name != ORIGINAL]
    table = [["image", "batch", "dtype", "threads", _title(ORIGINAL)]]
    table[0] += [f"{_title(name)} ({_as_fast_as('the original')})" for name in others]
    cases = {}
    for row in rows:
        case = tuple(row[column] for column in ("image_size", "batch_size", "dtype", "threads"))
        cases.setdefault(case, {})[row["model"]] = row
    for case, measured in cases.items():
        cells = []
        for name in (ORIGINAL, *others):
            row = measured.get(name)
            ratio = _ratio(row, measured.get(ORIGINAL), "images_per_second") if name != ORIGINAL else ""
            cells.append(f"{_number(row['images_per_second'])}{f' ({ratio})' * bool(ratio)}" if row else "")
        table.append([*case, *cells])
    return markdown(table, text_columns=0)


def _exports_section(rows: Rows) -> str:
    table = [["model", "ONNX, MB", "image", "batch", "threads", "onnxruntime, ms", _as_fast_as("PyTorch")]]
    cases = {}
    for row in rows:
        case = tuple(row[column] for column in ("model", "file_megabytes", "image", "batch_size", "threads"))
        cases.setdefault(case, {})[row["runtime"]] = row
    for case, measured in cases.items():
        exported = measured["onnxruntime"]
        table.append([*case, _number(exported["minimum_ms"]), _ratio(measured["PyTorch"], exported, "minimum_ms")])
    return markdown(table, text_columns=1)


def _has_own_table(model: str) -> bool:
    return ORIGINAL in (model, _original(model))


def _original(model: str) -> str | None:
    from .model_entries import MODELS as ENTRIES  # imports the models

    return ENTRIES[model].original if model in ENTRIES else None


def _title(model: str) -> str:
    from .model_entries import MODELS as ENTRIES

    return ENTRIES[model].title if model in ENTRIES else model


def _as_fast_as(peer: str) -> str:
    return f"as fast as {peer}"


def _ratio(row: dict[str, str] | None, other: dict[str, str] | None, column: str) -> str:
    return f"{_number(float(row[column]) / float(other[column]))}x" if row and other else ""


def _number(value: str | float) -> str:
    """Three significant digits, all those before the point."""
    value = float(value)
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def markdown(table: list[list[str]], text_columns: int) -> str:
    header, *rows = table
    rule = ["---"] * text_columns + ["--:"] * (len(header) - text_columns)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
