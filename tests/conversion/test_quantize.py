"""`hf-models quantize`: the folder loads as any other, and says nearly the same in a quarter of the bytes."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoBackbone, AutoModelForImageClassification, pipeline
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.conversion.quantize import quantize
from hf_models.int8_linear import Int8Linear
from hf_models.int8_quantizer import METHOD, Int8Config

from .test_export import saved

FAMILIES = ["internimage", "flash_internimage", "smt"]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for index in range(3):
        (folder / f"class {index}").mkdir(parents=True)
        pixels = torch.randint(0, 256, (70, 90, 3), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"class {index}" / "photo.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def logits(model, dtype=torch.float32):
    with torch.no_grad():
        return model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5)).to(dtype)).logits.float()


def int8_layers(model):
    return {name: layer for name, layer in model.named_modules() if type(layer) is Int8Linear}


@pytest.mark.parametrize("calibrated", [True, False], ids=["calibrated", "dynamic"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loads_as_any_model(family, calibrated, tmp_path, photos):
    source, original = saved(family, tmp_path / "model")
    report = quantize(source, tmp_path / "int8", calibration=photos if calibrated else None)
    assert report.images == (3 if calibrated else 0)

    assert not [path for path in (tmp_path / "int8").iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    config = json.loads((tmp_path / "int8" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == METHOD
    assert config["quantization_config"]["calibrated"] == calibrated

    model, info = AutoModelForImageClassification.from_pretrained(tmp_path / "int8", output_loading_info=True)
    assert not any(info.values())
    layers = int8_layers(model)
    assert len(layers) == report.layers
    assert type(model.classifier) is torch.nn.Linear
    assert not any("offset" in name or "mask" in name for name in layers)
    expected = logits(original.eval())
    assert (logits(model.eval()) - expected).abs().max() < 0.1 * expected.abs().max()

    model.save_pretrained(tmp_path / "again")
    assert {name: tensor.dtype for name, tensor in load_file(tmp_path / "again" / "model.safetensors").items()} == {
        name: tensor.dtype for name, tensor in load_file(tmp_path / "int8" / "model.safetensors").items()
    }
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(logits(again), logits(model))

    half = AutoModelForImageClassification.from_pretrained(tmp_path / "int8", dtype=torch.bfloat16).eval()
    assert (logits(half, torch.bfloat16) - expected).abs().max() < 0.1 * expected.abs().max()

    backbone = type(AutoBackbone.from_config(original.config)).from_pretrained(tmp_path / "int8")
    assert int8_layers(backbone)

    wide = model.dequantize().eval()
    assert not int8_layers(wide) and not hasattr(wide.config, "quantization_config")
    assert (logits(wide) - expected).abs().max() < 0.05 * expected.abs().max()


def test_loads_with_the_code_of_the_folder(tmp_path):
    """Where this package is not installed."""
    source, _ = saved("flash_internimage", tmp_path / "model")
    quantize(source, tmp_path / "int8")
    expected = logits(AutoModelForImageClassification.from_pretrained(tmp_path / "int8").eval())
    program = f"""
import sys, torch
sys.modules["hf_models"] = None
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained({str(tmp_path / "int8")!r}, trust_remote_code=True).eval()
with torch.no_grad():
    logits = model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))).logits
torch.save(logits, {str(tmp_path / "logits.pt")!r})
"""
    subprocess.run([sys.executable, "-I", "-c", program], check=True, capture_output=True)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, rtol=1e-4, atol=1e-4)


def test_transformers_alone_says_what_is_missing(tmp_path):
    """A stock model that names the method: without this package there is no such method."""
    source, _ = saved("flash_internimage", tmp_path / "model")
    quantize(source, tmp_path / "int8")
    program = f"""
from transformers.quantizers.auto import AutoQuantizationConfig
import json
AutoQuantizationConfig.from_dict(json.load(open({str(tmp_path / "int8" / "config.json")!r}))["quantization_config"])
"""
    result = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True)
    assert f"Unknown quantization type, got {METHOD}" in result.stderr


def test_commands_and_pipelines_take_it(tmp_path, photos):
    source, _ = saved("internimage", tmp_path / "model")
    result = CliRunner().invoke(app, ["quantize", source, str(tmp_path / "int8"), "--calibration", str(photos)])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "linear layers in 8 bits, calibrated with 3 images" in result.stdout
    photo = str(photos / "class 0" / "photo.png")
    classified = CliRunner().invoke(app, ["classify", photo, "--model", str(tmp_path / "int8"), "--json"])
    assert classified.exit_code == 0, classified.output
    answers = pipeline("image-classification", model=str(tmp_path / "int8"))(photo)
    scores = {entry["label"]: entry["score"] for entry in answers}
    assert len(scores) == 5 and json.loads(classified.stdout)


def test_is_not_quantised_while_it_loads(tmp_path):
    source, _ = saved("internimage", tmp_path / "model")
    with pytest.raises(ValueError, match="pre-quantized"):
        AutoModelForImageClassification.from_pretrained(source, quantization_config=Int8Config())


def test_refusals(tmp_path, photos):
    source, _ = saved("internimage", tmp_path / "model")
    quantize(source, tmp_path / "int8")
    without, _ = saved("replknet", tmp_path / "replknet")
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "photo.png").write_bytes((photos / "class 0" / "photo.png").read_bytes()[:200])
    for arguments, message in {
        (str(tmp_path / "int8"),): "is quantised already",
        (without,): "has no linear layers to quantise",
        (source, "--calibration", str(empty)): "holds no images",
        (source, "--calibration", str(tmp_path / "nowhere")): "no such folder",
        (source, "--calibration", str(broken)): "cannot be read completely",
        (str(empty),): "cannot be loaded",
    }.items():
        result = CliRunner().invoke(app, ["quantize", arguments[0], str(tmp_path / "out"), *arguments[1:]])
        assert result.exit_code == 2, result.output
        (line,) = result.stderr.splitlines()
        assert message in line and result.stdout == ""
        assert not (tmp_path / "out").exists()
    exported = CliRunner().invoke(app, ["export", str(tmp_path / "int8"), str(tmp_path / "out")])
    assert exported.exit_code == 2 and "is quantised" in exported.stderr
    assert CliRunner().invoke(app, ["quantize", source, str(empty / "x")]).exit_code == 0
    assert CliRunner().invoke(app, ["quantize", source, str(empty / "x")]).exit_code == 2  # not empty
