"""The CSV files of measurements: reading, and replacing the rows that were measured again."""

import csv
from dataclasses import dataclass
from pathlib import Path

from hf_models.errors import InputError
from hf_models.inference.files import replacing

CONDITIONS = ("kernel", "torch", "malloc_thresholds", "load", "date")  # of a time
FOLDER = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Format:
    """The columns of a file.

    Args:
        keys: What was measured where; there is one row for each combination.
        texts: What else describes it.
        numbers: What came out, above zero.
        optional: As `numbers`, or nothing in rows that were measured before there was such a column.
        percentages: What came out, from 0 to 100.
        conditions: Where and when.
    """

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    percentages: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    conditions: tuple[str, ...] = CONDITIONS

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.keys, *self.texts, *self.numbers, *self.percentages, *self.optional, *self.conditions)

    def key(self, row: dict[str, str]) -> tuple[str, ...]:
        return tuple(row[column] for column in self.keys)


OPERATORS = Format(
    keys=("operator", "shape", "batch_size", "dtype", "direction", "implementation", "threads", "device"),
    texts=("size",),
    numbers=("rounds", "minimum_ms", "median_ms", "minimum_ns_per_unit"),
)
MODELS = Format(
    keys=("model", "mode", "image_size", "batch_size", "dtype", "threads", "device"),
    texts=("runtime",),
    numbers=("rounds", "minimum_ms", "median_ms", "images_per_second", "median_images_per_second"),
    optional=("peak_megabytes",),
    conditions=("build", *CONDITIONS),
)
DETECTORS = Format(
    keys=("model", "image", "dtype", "threads", "device"),
    texts=(),
    numbers=("rounds", "minimum_ms", "median_ms", "backbone_minimum_ms", "peak_megabytes"),
    conditions=("build", *CONDITIONS),
)
EXPORTS = Format(
    keys=("model", "image", "batch_size", "threads", "runtime", "device"),
    texts=("onnxruntime",),
    numbers=("file_megabytes", "rounds", "minimum_ms", "median_ms"),
)
ACCURACY = Format(
    keys=("model", "revision", "data", "fingerprint", "metric", "options", "dtype", "processor", "device"),
    texts=("size",),
    numbers=("n", "seconds"),
    percentages=("value",),
    conditions=("kernel", "torch", "transformers", "date"),
)
MEMORY = Format(
    keys=("model", "image", "dtype", "version", "malloc_thresholds", "device"),
    texts=(),
    numbers=("forward_megabytes", "process_megabytes"),
    conditions=("kernel", "torch", "date"),
)
TRAINING = Format(
    keys=("model", "image_size", "batch_size", "dtype", "threads", "device"),
    texts=(),
    numbers=("rounds", "minimum_ms", "median_ms"),
)


def read_results(path: Path, form: Format) -> list[dict[str, str]]:
    """The rows of a file, none if it does not exist.

    Raises:
        InputError: The file is no such CSV.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
        if tuple(reader.fieldnames or ()) != form.columns:
            raise ValueError(f"its columns are not {', '.join(form.columns)}")
        for number, row in enumerate(rows, 2):
            if None in row or None in row.values():
                raise ValueError(f"row {number} has more or fewer than {len(form.columns)} fields")
            for column in (*form.numbers, *filter(row.get, form.optional)):
                if not float(row[column]) > 0:
                    raise ValueError(f"row {number}: {column} is {row[column]}")
            for column in form.percentages:
                if not 0 <= float(row[column]) <= 100:
                    raise ValueError(f"row {number}: {column} is {row[column]}")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a results file of this command ({error}). Name another, or move it.") from None
    return rows


def rows_under(path: Path, conditions: dict[str, str], form: Format) -> list[dict[str, str]]:
    """The rows of a file that were measured under these conditions, whatever the load of the machine was and when."""
    same = {column: value for column, value in conditions.items() if column not in ("load", "date")}
    return [row for row in read_results(path, form) if row.items() >= same.items()]


def merge_results(path: Path, rows: list[dict[str, str]], form: Format) -> None:
    """Add rows to a file, in the place of those with the same keys; the file is whole at every moment.

    Raises:
        InputError: The file is no such CSV, or cannot be written.
    """
    merged = {form.key(row): row for row in [*read_results(path, form), *rows]}
    with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, form.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(merged.values())
