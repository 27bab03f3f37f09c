"""Markdown tables of the benchmarks of operators and exports, rendered from their CSV files.

Every ratio is stated in one way: a column "as fast as X" holds n x, and n below 1 means slower than X.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..results import EXPORTS, FOLDER, OPERATORS, read_results

NOT_MEASURED = "Not measured yet.\n"
Rows = list[dict[str, str]]


def operators_table(path: Path = FOLDER / "operators.csv", **wanted: str) -> str:
    """A table for each operator, direction, dtype and number of threads, with a row for each shape.

    Args:
        path: The CSV file.
        wanted: Values that columns must have, such as `operator="deformable-conv"`.
    """
    rows = read_results(path, OPERATORS)
    return render_operators([row for row in rows if all(row[column] == value for column, value in wanted.items())])


def exports_table(path: Path = FOLDER / "export.csv") -> str:
    """A row for each exported model, batch size and number of threads."""
    return render_exports(read_results(path, EXPORTS))


def render_exports(rows: Rows) -> str:
    """As [`exports_table`], from rows."""
    return sections(rows, (), _exports_section) or NOT_MEASURED


def render_operators(rows: Rows) -> str:
    """As [`operators_table`], from rows."""
    return sections(rows, ("operator", "direction", "dtype", "threads"), _operators_section) or NOT_MEASURED


def sections(rows: Rows, keys: Sequence[str], render: Callable[[Rows], str]) -> str:
    """A part for each combination of these columns and the device: a line about it, and what `render` makes of it."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in (*keys, "device")), []).append(row)
    parts = []
    for (*values, device), group in groups.items():
        title = ", ".join(label(key, value) for key, value in zip(keys, values, strict=True))
        versions = [
            "; ".join(sorted({row[column][:length] for row in group if row.get("mode") != "baseline"}))
            for column, length in (("torch", None), ("kernel", None), ("date", len("2026-11-22")))
        ]
        about = f"{device}; torch {', '.join(versions)}"
        parts.append(f"{f'**{title}** ({about})' if title else about}\n\n{render(group)}\n")
    return "\n".join(parts)


def label(key: str, value: str) -> str:
    units = {"threads": f" thread{'s' * (value != '1')}", "image_size": " pixels"}
    return value + units.get(key, "")


def _operators_section(rows: Rows) -> str:
    from .operators import OPERATORS as KNOWN  # imports the operators

    known = KNOWN.get(rows[0]["operator"])
    others = [name for name in dict.fromkeys(row["implementation"] for row in rows) if name != "ours"]
    table = [["shape", known.size_title if known else "size", "ours, ms", "ns per unit", *map(as_fast_as, others)]]
    shapes = {}
    for row in rows:
        shapes.setdefault((row["shape"], row["size"]), {})[row["implementation"]] = row
    for shape, measured in shapes.items():
        ours = measured.get("ours")
        speed = [number(ours[column]) for column in ("minimum_ms", "minimum_ns_per_unit")] if ours else ["", ""]
        ratios = [ratio(measured.get(name), ours, "minimum_ms") for name in others]
        table.append([*shape, *speed, *ratios])
    return markdown(table, text_columns=2)


def _exports_section(rows: Rows) -> str:
    table = [["model", "ONNX, MB", "image", "batch", "threads", "onnxruntime, ms", as_fast_as("PyTorch")]]
    cases = {}
    for row in rows:
        case = tuple(row[column] for column in ("model", "file_megabytes", "image", "batch_size", "threads"))
        cases.setdefault(case, {})[row["runtime"]] = row
    for case, measured in cases.items():
        exported = measured["onnxruntime"]
        table.append([*case, number(exported["minimum_ms"]), ratio(measured["PyTorch"], exported, "minimum_ms")])
    return markdown(table, text_columns=1)


def as_fast_as(peer: str) -> str:
    return f"as fast as {peer}"


def ratio(row: dict[str, str] | None, other: dict[str, str] | None, column: str) -> str:
    return f"{number(float(row[column]) / float(other[column]))}x" if row and other else ""


def number(value: str | float) -> str:
    """Three significant digits, all those before the point."""
    value = float(value)
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def markdown(table: list[list[str]], text_columns: int) -> str:
    header, *rows = table
    rule = ["---"] * text_columns + ["--:"] * (len(header) - text_columns)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
