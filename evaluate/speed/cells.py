"""Rows of the benchmark of models by what took turns, and how their cells are written."""

from collections.abc import Iterable, Iterator, Sequence

from .model_entries import MODELS as ENTRIES
from .modes import MODES
from .tables import Rows, markdown, number, ratio

Row = dict[str, str]
Cell = dict[tuple[str, str, str], Row]  # model, mode, dtype -> row, of what took turns


def taking_turns(rows: Rows) -> list[Cell]:
    """The rows by what took turns."""
    cells: dict[tuple[str, ...], Cell] = {}
    for row in rows:
        turns = tuple(row[column] for column in ("image_size", "threads", "batch_size", "device", "date"))
        cells.setdefault(turns, {})[row["model"], row["mode"], row["dtype"]] = row
    return list(cells.values())


def cases(rows: Rows) -> Iterator[tuple[str, str, list[str], Cell]]:
    """Model, dtype, [threads, batch size] and what took turns with it; all of one model follow one another."""
    cells = taking_turns(rows)
    for name in dict.fromkeys(row["model"] for row in rows):
        for dtype in dict.fromkeys(row["dtype"] for row in rows):
            for cell in cells:
                if found := next((row for (n, _, d), row in cell.items() if (n, d) == (name, dtype)), None):
                    yield name, dtype, [found["threads"], found["batch_size"]], cell


def fastest(
    cell: Cell, names: Iterable[str | None], modes: Sequence[str] = ("eager",), dtype: str = "", precision: str = ""
) -> Row | None:
    """The fastest row of some models in some modes."""
    rows = [
        row
        for (name, mode, of), row in cell.items()
        if name in names and mode in modes and dtype in ("", of) and precision in ("", precision_of(row))
    ]
    return max(rows, key=lambda row: float(row["images_per_second"]), default=None)


def precision_of(row: Row, rest: bool = False) -> str:
    """That of the products; `rest` adds that of the rest, where it differs."""
    if not MODES[row["mode"]].int8:
        return row["dtype"]
    return f"8 bits, {row['dtype']}" if rest else "8 bits"


def filled(table: list[list[str]], text_columns: int) -> str:
    """Without columns that are empty."""
    kept = [index for index in range(len(table[0])) if any(line[index] for line in table[1:])]
    return markdown([[line[index] for index in kept] for line in table], sum(index < text_columns for index in kept))


def speed_of(row: Row) -> list[str]:
    return [number(row[column]) for column in ("images_per_second", "median_images_per_second")]


def images_of(row: Row | None) -> str:
    return number(row["images_per_second"]) if row else ""


def peak_of(row: Row) -> str:
    return f"{float(row['peak_megabytes']):.0f}" if row["peak_megabytes"] else ""


def images_ratio(row: Row | None, other: Row | None) -> str:
    return ratio(row, other, "images_per_second")


def title(model: str) -> str:
    return ENTRIES[model].title if model in ENTRIES else model
