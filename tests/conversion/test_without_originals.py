"""A family of which no original weights exist needs no file in `conversion/`: everything but converting works."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFIGURATION = """
from huggingface_hub.dataclasses import strict

from .configuration_base import HierarchicalConfig


@strict
class ToyConfig(HierarchicalConfig):
    model_type = "toy"

    hidden_sizes: list[int] | tuple[int, ...] = (4, 8)
    depths: list[int] | tuple[int, ...] = (1, 1)
"""
MODELING = """
from torch import nn

from .configuration_toy import ToyConfig
from .layers import GlobalAveragePooler
from .modeling_base import (
    HierarchicalBackbone,
    HierarchicalEncoder,
    HierarchicalForImageClassification,
    HierarchicalModel,
    HierarchicalPreTrainedModel,
    HierarchicalStage,
)


class ToyStage(HierarchicalStage):
    def __init__(self, in_channels, channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 2, stride=2)

    def forward(self, hidden_states):
        return self.conv(hidden_states).relu()


def encoder(config):
    widths = [config.hidden_sizes[0], *config.hidden_sizes]
    return HierarchicalEncoder([ToyStage(*pair) for pair in zip(widths, widths[1:])])


class ToyPreTrainedModel(HierarchicalPreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"


class ToyModel(ToyPreTrainedModel, HierarchicalModel):
    def __init__(self, config):
        super().__init__(config)
        self.embeddings = nn.Conv2d(3, config.hidden_sizes[0], 1)
        self.encoder, self.pooler = encoder(config), GlobalAveragePooler()
        self.post_init()


class ToyForImageClassification(ToyPreTrainedModel, HierarchicalForImageClassification):
    def __init__(self, config):
        super().__init__(config)
        self.toy = ToyModel(config)
        self.classifier = nn.Linear(config.pooled_size, config.num_labels)
        self.post_init()


class ToyBackbone(ToyPreTrainedModel, HierarchicalBackbone):
    def __init__(self, config):
        super().__init__(config)
        self.embeddings, self.encoder = nn.Conv2d(3, config.hidden_sizes[0], 1), encoder(config)
        self.post_init()
"""
REGISTRATION = """
from .configuration_toy import ToyConfig
from .modeling_toy import ToyBackbone, ToyForImageClassification, ToyModel

FAMILIES.append((ToyConfig, ToyModel, ToyForImageClassification, ToyBackbone))
"""
SCRIPT = """
import json, sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSemanticSegmentation

import hf_models
from hf_models.conversion import convert
from hf_models.conversion.export import export
from hf_models.conversion.publish import push_model
from hf_models.conversion.registry import FAMILIES
from hf_models.errors import InputError
from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.inference import classify_images
from hf_models.model_cards import render_card

torch.manual_seed(0)
processor = ImageNetImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
config = AutoConfig.for_model("toy", num_labels=3)
backbone = AutoConfig.for_model("toy", out_indices=[1, 2])
head = AutoConfig.for_model("segformer_head", backbone_config=backbone, hidden_size=8, num_labels=3)
told = {"package": hf_models.__file__, "converted": sorted(FAMILIES), "card": render_card(None, config)}
for name, auto_class, config in (
    ("classifier", AutoModelForImageClassification, config),
    ("segmenter", AutoModelForSemanticSegmentation, head),
):
    auto_class.from_config(config).save_pretrained(name)
    processor.save_pretrained(name)
    told[name] = sorted(push_model(name, "acme/toy", dry_run=True, progress=False)["files"])
Image.new("RGB", (40, 40), "red").save("photo.png")
told["labels"] = len(classify_images(["photo.png"], "classifier")[0])
told["export"] = export("classifier", Path("exported"), format="torch-export").difference
torch.save(AutoModelForImageClassification.from_pretrained("classifier").state_dict(), "toy.pth")
try:
    convert("toy.pth", "out", progress=False)
except InputError as error:
    told["refused"] = str(error)
print("TOLD", json.dumps(told))
"""

ROOMS = [f"hf_models.{room}" for room in ("conversion", "evaluate", "kernels_src", "model_cards")]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the package says that has one more family: two files and its registration."""
    folder = tmp_path_factory.mktemp("toy")
    package = folder / "hf_models"
    for room in ("hf_models", *ROOMS):
        source = Path(importlib.import_module(room).__file__).parent
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder.joinpath(*room.split(".")), ignore=ignored, dirs_exist_ok=True)
    (package / "configuration_toy.py").write_text(CONFIGURATION)
    (package / "modeling_toy.py").write_text(MODELING)
    auto, end = package / "auto.py", "\n\ndef register_families"
    auto.write_text(auto.read_text().replace(end, REGISTRATION + end))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.partition("TOLD ")[2])
    assert Path(told["package"]).parent == package
    return told


def test_what_can_be_converted(told):
    assert told["converted"] and "toy" not in told["converted"]
    assert told["refused"].startswith("toy.pth: not a checkpoint of ") and "toy," not in told["refused"]


def test_everything_else_works(told):
    assert {"configuration_toy.py", "modeling_toy.py", "modeling_base.py", "README.md"} <= set(told["classifier"])
    assert {"configuration_toy.py", "modeling_toy.py", "modeling_segformer_head.py"} <= set(told["segmenter"])
    assert "# Toy\n" in told["card"] and told["labels"] == 3 and told["export"] < 1e-4
