"""The benchmarks of memory and of training: what is kept, what the tables say. No times are tested."""

import csv

import pytest
from transformers import AutoModelForImageClassification
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.configuration_internimage import InternImageConfig
from hf_models.evaluate.results import MEMORY, TRAINING
from hf_models.evaluate.speed import memory, training_step

CONFIG = {"hidden_sizes": [16] * 4, "depths": [1] * 4, "groups": [2] * 4}


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["benchmark", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_memory(monkeypatch, tmp_path):
    config = InternImageConfig(**CONFIG, out_features=["stage1", "stage4"])
    monkeypatch.setattr(memory, "CASES", {"tiny": memory.Case("Tiny", "AutoBackbone", config, (960, 640))})
    results = tmp_path / "memory.csv"
    out = run("memory", "--models", "tiny", "--dtypes", "float32", "--results", results).stdout
    assert "| Tiny | 960 x 640 | float32 | default |" in out
    rows = rows_of(results)
    assert [row["malloc_thresholds"] for row in rows] == ["default", "raised"]
    assert all(0 < float(row["forward_megabytes"]) < float(row["process_megabytes"]) for row in rows)


def test_training(monkeypatch, tmp_path):
    def build():
        return AutoModelForImageClassification.from_config(InternImageConfig(**CONFIG, num_labels=1000))

    models = {"internimage-t": ("InternImage-T", build), "convnext-t": ("ConvNeXt-T", build)}
    monkeypatch.setattr(training_step, "MODELS", models)
    results = tmp_path / "training.csv"
    size = "--batch-size", 2, "--image-size", 32, "--rounds", 1, "--seconds", 0
    out = run("training", *size, "--threads", 1, "--results", results).stdout
    assert "| InternImage-T | 2 | bfloat16 | 1 |" in out
    assert len(rows_of(results)) == 4


@pytest.mark.parametrize("command", ["memory", "training"])
def test_what_there_is_not_is_refused(command):
    result = run(command, "--models", "resnet", code=2)
    assert (
        result.stderr.startswith("resnet: no such model. Choose from internimage-t") and result.stderr.count("\n") == 1
    )


def test_another_python_that_does_not_run(tmp_path):
    result = run("memory", "--models", "internimage-t", "--python", tmp_path / "python", code=2)
    assert "cannot be run (No such file or directory). Name a Python." in result.stderr


def row_of(form, **values):
    return dict.fromkeys(form.columns, "1") | values


def test_memory_beside_another_version():
    rows = [
        row_of(MEMORY, model="internimage-t", version=version, forward_megabytes=megabytes)
        for version, megabytes in ((memory.CURRENT, "150"), ("old", "300"))
    ]
    table = memory.render_memory(rows)
    assert "of the forward of old" in table and "| 150 | 1 | 0.50x |" in table
    assert memory.render_memory([]) == "Not measured yet.\n"


def test_training_beside_the_faster_layout():
    times = {"internimage-t": "300", "convnext-t": "250", "convnext-t-nchw": "200"}
    rows = [row_of(TRAINING, model=name, minimum_ms=time) for name, time in times.items()]
    assert "| InternImage-T | 1 | 1 | 1 | 300 | 1.50x |" in training_step.render_training(rows)
    assert training_step.render_training([]) == "Not measured yet.\n"
