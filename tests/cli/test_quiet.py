"""Normal use prints progress on standard error and no warnings, but for those that docs/index.md lists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..harness.conversion_tester import read_manifest, write_original
from ..harness.evaluation_tester import make_folder, make_model
from ..harness.hub_tester import tiny_folder

EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTO = str(EXAMPLES / "sample.jpg")
PROGRESS = re.compile(r"\d+%\||\d+ ?it \[|it/s|s/it|\x1b\[A")
CODE = f"""
import hf_models
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

folder = str(hf_models.default_checkpoint())
pipeline("image-classification", model=folder)({PHOTO!r})
pipeline("image-segmentation", model="segmenter")({PHOTO!r})
model = AutoModelForImageClassification.from_pretrained(folder, num_channels=1)
processor = AutoImageProcessor.from_pretrained(folder)
processor.fit_channels(1)
model(**processor(Image.open({PHOTO!r}), return_tensors="pt")).logits.sum().backward()
model.save_pretrained("grey")
"""
RUNS = {
    "classify": ["classify", PHOTO],
    "segment": ["segment", PHOTO, "--model", "segmenter", "--out", "overlay.png"],
    "convert": ["convert", "original.pth", "converted", "--original-config", "original.json"],
    "export": ["export", "smt", "exported"],
    "evaluate ade20k": [
        "evaluate",
        "ade20k",
        "--model",
        "segmenter",
        "--data",
        "ADE",
        "--subset",
        "--results",
        "a.csv",
    ],
    "evaluate classes": ["evaluate", "classes", "--model", "default", "--data", "photos", "--results", "b.csv"],
    "visualize": ["visualize", "features", PHOTO, "--out", "features.png"],
    "push": ["push", "smt", "--repo", "ORG/smt", "--dry-run"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with small models and data."""
    folder = tmp_path_factory.mktemp("quiet")
    tiny_folder(folder / "smt", "smt")
    make_model(folder / "segmenter")
    make_folder(folder / "ADE")
    write_original(folder, read_manifest("internimage_tiny_l"))
    (folder / "photos" / "espresso").mkdir(parents=True)
    (folder / "photos" / "espresso" / "sample.jpg").write_bytes(Path(PHOTO).read_bytes())
    return folder


def printed(folder: Path, *arguments: str) -> list[str]:
    """The lines on standard error of a process as users start it, but those of progress bars."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True
    )
    lines = re.split(r"[\r\n]", done.stderr.decode())
    assert done.returncode == 0, lines
    return [line for line in lines if line.strip() and not PROGRESS.search(line)]


@pytest.mark.parametrize("arguments", RUNS.values(), ids=RUNS)
def test_commands_warn_of_nothing(folder, arguments):
    if arguments[0] == "visualize":
        pytest.importorskip("matplotlib")
    assert printed(folder, "-m", "hf_models.cli", *arguments) == []


def test_models_warn_of_nothing_in_python(folder):
    assert printed(folder, "-c", CODE) == []


def test_a_new_classifier_is_reported(folder):
    """The one report that is left: transformers prints it where the user asked for it."""
    code = """
import hf_models
from transformers import AutoModelForImageClassification
AutoModelForImageClassification.from_pretrained("smt", num_labels=3, ignore_mismatched_sizes=True)
"""
    report = "\n".join(printed(folder, "-c", code))
    assert "LOAD REPORT" in report and report.count("| MISMATCH |") == 2
