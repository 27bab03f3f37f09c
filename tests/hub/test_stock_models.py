"""Models of transformers on a backbone of ours: saved by transformers' own classes, they load without the package."""

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from transformers import DetrImageProcessorPil

from hf_models.configuration_internimage import InternImageConfig
from hf_models.conversion.publish import push_model
from hf_models.errors import InputError
from hf_models.inference.files import read_json

SMALL = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
SMALL |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 5}
RT_DETR = {"encoder_in_channels": [16, 32, 64], "encoder_hidden_dim": 32, "decoder_in_channels": [32, 32, 32]}
# class -> stages of the backbone, config, Auto class
MODELS = {
    "DetrForObjectDetection": (1, SMALL, "AutoModelForObjectDetection"),
    "ConditionalDetrForObjectDetection": (1, SMALL, "AutoModelForObjectDetection"),
    "DeformableDetrForObjectDetection": (3, SMALL, "AutoModelForObjectDetection"),  # has tied weights
    "RTDetrForObjectDetection": (3, SMALL | RT_DETR | {"num_denoising": 0}, "AutoModelForObjectDetection"),
    "UperNetForSemanticSegmentation": (
        *(3, {"hidden_size": 8, "pool_scales": [1, 2], "use_auxiliary_head": False}),
        "AutoModelForSemanticSegmentation",
    ),
    "DPTForDepthEstimation": (4, {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}, None),
}
LOADED = [name for name, (_, _, auto_class) in MODELS.items() if auto_class]

CLIENT = """
import sys

sys.modules["hf_models"] = None  # as where it is not installed
import torch
import transformers

pixel_values = torch.load("pixels.pt")
outputs = {}
for name, auto_class in CASES:
    for folder, kwargs in ((name, {}), (name + "-again", {})):
        model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True).eval()
        assert type(model).__module__.startswith("transformers_modules."), type(model)
        with torch.inference_mode():
            outputs[folder] = model(pixel_values=pixel_values)[0]
        if folder == name:
            model.save_pretrained(name + "-again")
torch.save(outputs, "outputs.pt")
"""


def stock_model(name):
    torch.manual_seed(0)
    stages, small, _ = MODELS[name]
    depth = max(stages, 2)
    backbone = InternImageConfig(
        hidden_sizes=[16, 32, 64, 128][:depth],
        depths=[1] * depth,
        groups=[1, 2, 4, 8][:depth],
        out_features=[f"stage{depth - stages + 1 + stage}" for stage in range(stages)],
    )
    model_class = getattr(transformers, name)
    return model_class(model_class.config_class(backbone_config=backbone, num_labels=3, **small)).eval()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    work = tmp_path_factory.mktemp("stock")
    for name in MODELS:
        stock_model(name).save_pretrained(work / name)
        DetrImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(work / name)
    return work


def test_they_load_without_the_package(work):
    pixel_values = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.save(pixel_values, work / "pixels.pt")
    cases = [(name, MODELS[name][2]) for name in LOADED]
    done = subprocess.run(
        [sys.executable, "-c", f"CASES = {cases!r}\n" + CLIENT],
        cwd=work,
        env=os.environ | {"HF_HOME": str(work / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = torch.load(work / "outputs.pt")
    for name in LOADED:
        with torch.inference_mode():
            expected = stock_model(name)(pixel_values=pixel_values)[0]
        for folder in (name, f"{name}-again"):
            torch.testing.assert_close(outputs[folder], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_they_can_be_published(work, name):
    files = push_model(work / name, "acme/model", dry_run=True, progress=False)["files"]
    assert {"stock_models.py", "auto.py", "modeling_internimage.py", "README.md"} <= files.keys()
    config = read_json(work / name / "config.json")
    assert config["auto_map"]["AutoConfig"] == f"stock_models.Hub{type(stock_model(name).config).__name__}"


def test_with_the_package_they_are_those_of_transformers(work):
    folder = work / "DetrForObjectDetection"
    model = transformers.AutoModelForObjectDetection.from_pretrained(folder)
    assert type(model) is transformers.DetrForObjectDetection


def test_other_models_of_transformers_are_saved_as_ever(tmp_path):
    transformers.UperNetConfig().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())
    transformers.DetrImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="model_type 'upernet' is none of this package's"):
        push_model(tmp_path, "acme/model", dry_run=True, progress=False)
