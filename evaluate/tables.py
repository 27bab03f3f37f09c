"""Markdown tables of the benchmarks, rendered from their CSV files."""

from collections.abc import Callable
from pathlib import Path

from .results import FOLDER, MODELS, OPERATORS, read_results

NOT_MEASURED = "Not measured yet.\n"
MODEL_PEERS = {"convnext-t": "ConvNeXt-T", "swin-t": "Swin-T"}


def operators_table(path: Path = FOLDER / "operators.csv", threads: str | None = None) -> str:
    """A table for each direction, dtype and number of threads (or that one), with a row for each shape."""
    rows = read_results(path, OPERATORS)
    return render_operators([row for row in rows if threads in (None, row["threads"])])


def models_table(path: Path = FOLDER / "models.csv") -> str:
    """A table for each dtype and number of threads, with a row for each model and batch size."""
    return render_models(read_results(path, MODELS))


def render_operators(rows: list[dict[str, str]]) -> str:
    """As [`operators_table`], from rows."""
    return _sections(rows, ("direction", "dtype"), _operators_section)


def render_models(rows: list[dict[str, str]]) -> str:
    """As [`models_table`], from rows."""
    return _sections(rows, ("dtype",), _models_section)


def _sections(rows: list[dict[str, str]], keys: tuple[str, ...], render: Callable) -> str:
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in (*keys, "threads", "device")), []).append(row)
    sections = []
    for (*names, threads, device), group in groups.items():
        versions = ["; ".join(sorted({row[column] for row in group})) for column in ("torch", "kernel", "date")]
        title = f"**{', '.join(names)}, {threads} thread{'s' * (threads != '1')}**"
        sections.append(f"{title} ({device}; torch {', '.join(versions)})\n\n{render(group)}\n")
    return "\n".join(sections) or NOT_MEASURED


def _operators_section(rows: list[dict[str, str]]) -> str:
    others = [name for name in dict.fromkeys(row["implementation"] for row in rows) if name != "ours"]
    table = [["shape", "N x H x W, groups x channels", "ours, ms", "ns per unit", *others]]
    shapes = {}
    for row in rows:
        shapes.setdefault((row["shape"], row["size"]), {})[row["implementation"]] = row
    for shape, measured in shapes.items():
        ours = measured.get("ours")
        speed = [_number(ours[column]) for column in ("minimum_ms", "minimum_ns_per_unit")] if ours else ["", ""]
        ratios = [_ratio(measured.get(name), ours, "minimum_ms") for name in others]
        table.append([*shape, *speed, *ratios])
    return markdown(table, text_columns=2)


def _models_section(rows: list[dict[str, str]]) -> str:
    from .model_entries import MODELS as ENTRIES  # imports the models

    table = [
        ["model", "batch", "images/s", "median", *(f"of {title}" for title in MODEL_PEERS.values()), "of the original"]
    ]
    measured = {(row["model"], row["batch_size"]): row for row in rows}
    for (name, batch_size), row in measured.items():
        entry = ENTRIES.get(name)
        compared = [*MODEL_PEERS, entry and entry.original]
        ratios = [
            "" if peer == name else _ratio(row, measured.get((peer, batch_size)), "images_per_second")
            for peer in compared
        ]
        speed = [_number(row[column]) for column in ("images_per_second", "median_images_per_second")]
        table.append([entry.title if entry else name, batch_size, *speed, *ratios])
    return markdown(table, text_columns=1)


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
