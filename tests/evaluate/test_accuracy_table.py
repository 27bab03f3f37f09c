"""`hf-models evaluate table`: measured beside reported numbers."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.evaluate import accuracy_table
from hf_models.evaluate.results import ACCURACY, merge_results


def row_of(**values):
    return dict.fromkeys(ACCURACY.columns, "1") | {"options": "", "dtype": "float32"} | values


def table(path: Path) -> list[str]:
    result = CliRunner().invoke(app, ["evaluate", "table", "--results", str(path)])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_differences_above_a_tenth_are_in_bold(tmp_path):
    path, full = tmp_path / "imagenet.csv", "ImageNet-1K validation"
    rows = [
        row_of(model="internimage_t_1k_224", data=full, metric="top-1", value="83.4720"),  # reported: 83.5
        row_of(model="internimage_s_1k_224", data=full, metric="top-1", value="84.1"),  # 84.2
        row_of(model="smt_tiny", data=full, metric="top-1", value="82.0"),  # 82.2
        row_of(model="smt_tiny", data=full, metric="top-5", value="96.2"),  # 96.0
        row_of(model="smt_tiny", data="val, 9 images", metric="subset top-1", value="70", options="o"),
        row_of(model="my-model", data=full, metric="top-1", value="50"),
    ]
    merge_results(path, rows, ACCURACY)
    assert table(path)[2:] == [
        "| internimage_t_1k_224 | ImageNet-1K validation | top-1 | float32 | 83.47 | 83.5 | -0.03 |",
        "| internimage_s_1k_224 | ImageNet-1K validation | top-1 | float32 | 84.10 | 84.2 | -0.10 |",
        "| smt_tiny | ImageNet-1K validation | top-1 | float32 | 82.00 | 82.2 | **-0.20** |",
        "| smt_tiny | ImageNet-1K validation | top-5 | float32 | 96.20 | 96 | **+0.20** |",
        "| smt_tiny | val, 9 images | subset top-1 (o) | float32 | 70.00 |  |  |",
        "| my-model | ImageNet-1K validation | top-1 | float32 | 50.00 |  |  |",
    ]


def test_without_results(tmp_path):
    assert accuracy_table.accuracy_table([tmp_path / "none.csv"]) == "Not measured yet.\n"


@pytest.mark.parametrize("value", ["100.1", "-1", "nan", "high"])
def test_a_number_that_is_no_percentage_is_one_line(tmp_path, value):
    path = tmp_path / "imagenet.csv"
    merge_results(path, [row_of(value=value)], ACCURACY)
    result = CliRunner().invoke(app, ["evaluate", "table", "--results", str(path)])
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 2 and line.startswith(f"{path}: not a results file")
