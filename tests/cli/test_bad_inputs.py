"""What users bring by mistake, or others to harm them: one line that says what is wrong, status 2, nothing written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.errors import InputError, printable

from ..harness import bad_checkpoints, bad_coco, bad_data, bad_folders
from ..harness.bad_input_case import BOMB, NAME, Bomb, Case
from ..harness.conversion_tester import converted, read_manifest
from ..harness.detection_tester import make_detector
from ..harness.evaluation_tester import make_model

SETS = {
    "checkpoints": bad_checkpoints.CASES,
    "folders": bad_folders.CASES,
    "data": bad_data.CASES,
    "COCO": bad_coco.CASES,
}
CASES = {f"{name}: {case}": cases[case] for name, cases in SETS.items() for case in cases}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    _, output, _ = converted(folder, NAME)
    output.rename(folder / "model")
    make_model(folder / "segmenter")
    make_detector(folder / "detector")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, models):
    """A working folder with what good inputs need, so that only the bad one is to blame."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arguments.json").write_text(json.dumps(read_manifest(NAME)["config"]))
    Image.new("RGB", (80, 60), (200, 30, 30)).save("image.png")
    for model in ("model", "segmenter", "detector"):
        shutil.copytree(models / model, model)
    return tmp_path


def contents(folder: Path) -> dict[Path, int | None]:
    return {path: path.stat().st_mtime_ns if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("name", CASES)
def test_refused(name, here):
    case: Case = CASES[name]
    case.build()
    before = contents(here)
    result = CliRunner().invoke(app, list(case.command))
    assert result.exit_code == 2, result.output or result.exception
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert case.path in line and re.search(case.message if "|" in case.message else re.escape(case.message), line), (
        line
    )
    assert line.isprintable() and len(line) <= 1000
    assert contents(here) == before
    assert not Path(BOMB).exists()


def test_refused_by_the_installed_program(tmp_path):
    """Its real exit status and streams, isolated, and without a way to the network."""
    name = "\x1b[2J\nx.pth"
    torch.save({"model": Bomb()}, tmp_path / name)
    program = [sys.executable, "-I", "-m", "hf_models.cli", "convert", name, "out"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.startswith("\\x1b[2J\\nx.pth: refused, it would call posix.mkdir") and done.stderr.count("\n") == 1
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_message_is_one_line_of_bounded_length():
    error = InputError("a\nb\x1b[31m\u202e\ud800" + "é" * 5000 + ": the end")
    assert str(error).startswith("a\\nb\\x1b[31m\\u202e\\ud800éé") and str(error).endswith("éé: the end")
    assert str(error).isprintable() and len(str(error)) < 1030
    assert printable(printable("a\nb")) == "a\\nb"
