"""A new backbone is three files and its registration: a toy is added to a copy of the package, and all works for it.

The toy has three stages and strides of 2, 4 and 8 pixels, unlike every published model.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "harness" / "toy_backbone"
ROOMS = ("conversion", "evaluate", "kernels_src", "model_cards")  # installed inside hf_models
REGISTRATION = {
    "# A new backbone": """from .configuration_toy import ToyConfig
from .modeling_toy import ToyBackbone, ToyForImageClassification, ToyModel

# A new backbone""",
    "FAMILIES = [": "FAMILIES = [\n    (ToyConfig, ToyModel, ToyForImageClassification, ToyBackbone),",
}
TEST = """
from hf_models.configuration_toy import ToyConfig

from ..harness.model_tester import ModelTester


class TestToy(ModelTester):
    config_class = ToyConfig
    config_kwargs = {"hidden_sizes": (8, 16, 24), "depths": (1, 2, 1)}
"""

USE = """
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import UperNetConfig, UperNetForSemanticSegmentation
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.configuration_toy import ToyConfig
from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.modeling_toy import ToyForImageClassification

model = ToyForImageClassification(ToyConfig(num_labels=5, image_size=64))
model.save_pretrained("model")
square = {"height": 64, "width": 64}
ImageNetImageProcessor(size={"shortest_edge": 72}, crop_size=square).save_pretrained("model")
Image.new("RGB", (90, 80), "red").save("photo.png")


def run(*command, exit_code=0):
    result = CliRunner().invoke(app, command)
    assert result.exit_code == exit_code, (command, result.output, result.exception)
    return result.output


assert "LABEL_" in run("classify", "photo.png", "--model", "model")
assert "8*rows" in run("export", "model", "exported", "--format", "torch-export", "--dynamic")
assert "nothing was sent" in run("push", "model", "--repo", "me/toy", "--dry-run")
refused = run("convert", "model/model.safetensors", "converted", exit_code=2)
assert "not a checkpoint of" in refused and refused.count(chr(10)) == 1
try:
    import matplotlib
except ImportError:
    print("pictures are not tested without matplotlib", file=sys.stderr)
else:
    features = ("visualize", "features", "photo.png", "--model", "model", "--out", "features.png", "--size")
    run(*features, "72")
    assert "multiple of 8" in run(*features, "60", exit_code=2)
    assert "no deformable layers" in run("visualize", "sampling", "photo.png", "--model", "model", exit_code=2)

backbone = ToyConfig()
backbone.out_features = backbone.stage_names[1:]
config = UperNetConfig(backbone_config=backbone, hidden_size=16, num_labels=4, use_auxiliary_head=False)
segmenter = UperNetForSemanticSegmentation(config)
segmenter.save_pretrained("segmenter")
"""

USE_WITHOUT_PACKAGE = """
import sys

sys.modules["hf_models"] = None  # as where it is not installed
import torch
from transformers import AutoModelForImageClassification, AutoModelForSemanticSegmentation, pipeline

for auto, folder, shape in (
    (AutoModelForImageClassification, "model", (1, 5)), (AutoModelForSemanticSegmentation, "segmenter", (1, 4, 64, 96))
):
    model = auto.from_pretrained(folder, trust_remote_code=True).eval()
    assert type(model).__module__.startswith("transformers_modules.")
    assert model(torch.zeros(1, 3, 64, 96)).logits.shape == shape
answer = pipeline("image-classification", model="model", trust_remote_code=True)("photo.png", top_k=1)
assert set(answer[0]) == {"label", "score"}
"""


@pytest.fixture(scope="module")
def run_in_copy(tmp_path_factory):
    """Adds the toy to a copy of the package; returns what runs Python there."""
    copy = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__", "default", "fixtures")
    shutil.copytree(ROOT / "hf_models", copy / "hf_models", ignore=ignore)
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / "hf_models" / room, ignore=ignore)
    for file in TOY.glob("*.py"):
        shutil.copy(file, copy / "hf_models")
    (copy / "tests" / "models").mkdir(parents=True)
    (copy / "tests" / "harness").mkdir()
    shutil.copy(ROOT / "tests" / "harness" / "model_tester.py", copy / "tests" / "harness")
    (copy / "tests" / "models" / "test_toy.py").write_text(TEST)
    auto = (copy / "hf_models" / "auto.py").read_text()
    for place, lines in REGISTRATION.items():
        assert auto.count(place) == 1
        auto = auto.replace(place, lines)
    (copy / "hf_models" / "auto.py").write_text(auto)

    def run(*arguments):
        environment = os.environ | {"PYTHONPATH": str(copy), "HF_HOME": str(copy / "cache"), "HF_HUB_OFFLINE": "1"}
        result = subprocess.run(
            [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, timeout=500
        )
        assert result.returncode == 0, result.stdout + result.stderr

    return run


def test_its_own_tests_pass(run_in_copy):
    run_in_copy("-m", "pytest", "-q", "--import-mode=importlib", "tests/models/test_toy.py")


def test_everything_works_for_it(run_in_copy):
    run_in_copy("-c", USE)
    run_in_copy("-c", USE_WITHOUT_PACKAGE)
