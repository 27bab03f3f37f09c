"""What belongs to the package as a whole: the folders that are installed under other names."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from ..harness.environment import Environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("room", ["conversion", "evaluate", "kernels_src", "model_cards", "conversion.publish"])
def test_rooms_are_installed_inside_the_package(room):
    assert Path(importlib.import_module(f"hf_models.{room}").__file__).is_file()


def test_evaluate_says_why_it_cannot_be_imported_by_its_bare_name():
    done = subprocess.run([sys.executable, "-c", "import evaluate"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: evaluate:") and "hf_models.evaluate" in message


def test_python_in_a_clone_finds_every_room(tmp_path):
    """Also where the package is not installed, or installed without a link to this clone: the clone comes first."""
    rooms = "conversion.publish, hf_models.evaluate, hf_models.kernels_src.build, hf_models.model_cards"
    code = f"import hf_models.{rooms}; from hf_models.inference.classify import classify_images; "
    code += "print(classify_images(['examples/sample.jpg'])[0][0]['label'])"
    done = Environment(tmp_path, package=False).run("-c", code, cwd=ROOT)
    assert done.returncode == 0 and done.stdout, done.stderr[-2000:]
