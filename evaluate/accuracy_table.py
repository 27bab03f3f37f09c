"""Measured accuracy beside what the authors report, rendered from the CSV files."""

from collections.abc import Sequence
from pathlib import Path

from hf_models.zoo import find_checkpoint, list_models

from .data.ade20k import FULL as ADE20K
from .data.coco import FULL as COCO
from .data.imagenet import FULL as IMAGENET
from .results import ACCURACY, FOLDER, read_results
from .speed.tables import NOT_MEASURED, markdown

FILES = (FOLDER / "imagenet.csv", FOLDER / "ade20k.csv", FOLDER / "coco.csv", FOLDER / "shape_bias.csv")
REPORTED = {
    (IMAGENET, "top-1"): "top1",
    (IMAGENET, "top-5"): "top5",
    (ADE20K, "mIoU"): "miou",
    (COCO, "box AP"): "box_ap",
    (COCO, "mask AP"): "mask_ap",
}
TOLERANCE = 0.1  # percentage points


def measured_rows(model: str | None = None, paths: Sequence[Path] = FILES) -> list[dict[str, str]]:
    """The rows of the files, of one model or of all."""
    rows = [row for path in paths for row in read_results(path, ACCURACY)]
    return [row for row in rows if model in (None, row["model"])]


def accuracy_table(paths: Sequence[Path] = FILES) -> str:
    """A row for each measurement; a difference from the reported number above `TOLERANCE` is in bold."""
    table = [["model", "data", "metric", "dtype", "measured", "reported", "difference"]]
    for row in measured_rows(paths=paths):
        reported = _reported(row)
        metric = f"{row['metric']} ({row['options']})" if row["options"] else row["metric"]
        cells = [row["model"], row["data"], metric, row["dtype"], f"{float(row['value']):.2f}"]
        table.append([*cells, "" if reported is None else f"{reported:g}", _difference(row, reported)])
    return f"{markdown(table, text_columns=4)}\n" if len(table) > 1 else NOT_MEASURED


def _reported(row: dict[str, str]) -> float | None:
    key = REPORTED.get((row["data"], row["metric"]))
    return find_checkpoint(row["model"]).reported.get(key) if row["model"] in list_models() else None


def _difference(row: dict[str, str], reported: float | None) -> str:
    if reported is None:
        return ""
    difference = float(row["value"]) - reported
    # a millionth more, so that 83.4 and 83.5 do not differ by more than 0.1
    return f"**{difference:+.2f}**" if abs(difference) > TOLERANCE + 1e-6 else f"{difference:+.2f}"
