"""Export to ONNX and torch.export: what is written computes what PyTorch does; what is wrong is not written."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageClassification, BitImageProcessorPil
from typer.testing import CliRunner

from hf_models import hub_kernels
from hf_models.cli import app
from hf_models.conversion.export import export
from hf_models.conversion.export import model as export_module
from hf_models.large_kernel_conv import LargeKernelDepthwiseConv2d

from ..models import test_flash_internimage, test_internimage, test_replknet, test_smt

FAMILIES = {
    "internimage": (test_internimage.TestInternImageAttentionPooler, {"depths": (1, 1, 1, 1)}),
    "flash_internimage": (test_flash_internimage.TestFlashInternImage, {"depths": (1, 1, 1, 1)}),
    "smt": (test_smt.TestSMT, {"depths": (1, 1, 2, 1)}),
    "replknet": (test_replknet.TestRepLKNet, {"depths": (1, 1, 1, 1)}),
}


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def saved(family: str, folder: Path) -> tuple[str, AutoModelForImageClassification]:
    """A folder with a tiny classifier for images of 64 pixels, and the classifier."""
    tester, config = FAMILIES[family]
    model = tester().classifier(**config)
    model.config.id2label = {i: f"class {i}" for i in range(10)}
    model.save_pretrained(folder)
    crop = {"height": 64, "width": 64}
    BitImageProcessorPil(size={"shortest_edge": 64}, crop_size=crop).save_pretrained(folder)
    return str(folder), model


def assert_same(got: torch.Tensor, model: AutoModelForImageClassification, pixel_values: torch.Tensor) -> None:
    with torch.no_grad():
        expected = model(pixel_values).logits
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


def onnx_session(folder: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(folder / "model.onnx")


def require_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_runs_any_batch_size(family, tmp_path):
    require_onnx()
    source, model = saved(family, tmp_path / "model")
    report = export(source, tmp_path / "onnx")
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {
        "model.onnx",
        "config.json",
        "preprocessor_config.json",
    }
    assert report.size == (tmp_path / "onnx" / "model.onnx").stat().st_size
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert config["id2label"]["3"] == "class 3"
    assert "auto_map" not in config, "names files that are not there"
    session = onnx_session(tmp_path / "onnx")
    assert [(tensor.name, tensor.shape) for tensor in session.get_inputs()] == [("pixel_values", ["batch", 3, 64, 64])]
    assert [(tensor.name, tensor.shape) for tensor in session.get_outputs()] == [("logits", ["batch", 10])]
    for batch_size in (1, 5):
        pixel_values = images(batch_size, 3, 64, 64)
        (logits,) = session.run(["logits"], {"pixel_values": pixel_values.numpy()})
        assert_same(torch.from_numpy(logits), model, pixel_values)


def test_onnx_runs_other_sizes(tmp_path):
    require_onnx()
    source, model = saved("replknet", tmp_path / "model")
    export(source, tmp_path / "onnx", dynamic=True)
    session = onnx_session(tmp_path / "onnx")
    pixel_values = images(1, 3, 160, 32)
    assert_same(torch.from_numpy(session.run(None, {"pixel_values": pixel_values.numpy()})[0]), model, pixel_values)
    assert str(tmp_path).encode() not in (tmp_path / "onnx" / "model.onnx").read_bytes()
    assert b"modeling_replknet.py" not in (tmp_path / "onnx" / "model.onnx").read_bytes()


def test_program_runs_other_sizes_and_is_replaced_on_demand(tmp_path):
    source, model = saved("replknet", tmp_path / "model")
    arguments = ["export", source, str(tmp_path / "program"), "--format", "torch-export"]
    result = CliRunner().invoke(app, [*arguments, "--dynamic"])
    assert result.exit_code == 0, result.output
    assert "pixel_values (batch, 3, 32*rows, 32*columns) -> logits" in result.stdout
    pixel_values = images(4, 3, 96, 64)
    (logits,) = torch.export.load(tmp_path / "program" / "model.pt2").module()(pixel_values)
    assert_same(logits, model, pixel_values)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "--overwrite" in result.stderr
    result = CliRunner().invoke(app, [*arguments, "--overwrite"])
    assert result.exit_code == 0 and "(batch, 3, 64, 64)" in result.stdout


def test_no_kernel_is_traced(monkeypatch):
    def looked_for(*_):
        raise AssertionError("a kernel was looked for")

    monkeypatch.setattr(hub_kernels, "_has_kernel", looked_for)
    program = torch.export.export(LargeKernelDepthwiseConv2d(4, 5), (images(1, 4, 8, 8),))
    operators = {node.target.namespace for node in program.graph.nodes if node.op == "call_function"}
    assert operators == {"aten"}


def run_wrong(program, path, names, shapes):
    path.write_text("wrong")
    return lambda pixel_values: [torch.zeros(len(pixel_values), 10)]


def run_nan(program, path, names, shapes):
    return lambda pixel_values: [torch.full((len(pixel_values), 10), float("nan"))]


def fail(program, path, names, shapes):
    path.write_text("half")
    raise RuntimeError("step 2 of 3") from ValueError("no such operator\nand a long explanation")


@pytest.mark.parametrize(
    ("writer", "message"),
    [(run_wrong, "differs from PyTorch by"), (run_nan, "differs from PyTorch by nan"), (fail, "(no such operator)")],
)
def test_what_is_wrong_is_not_written(writer, message, tmp_path, monkeypatch):
    source, _ = saved("replknet", tmp_path / "model")
    monkeypatch.setitem(export_module.FORMATS, "torch-export", ("model.pt2", writer, ()))
    result = CliRunner().invoke(app, ["export", source, str(tmp_path / "out"), "--format", "torch-export"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{source}: ") and message in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["full"], "full: cannot be loaded as a model"),
        (["default", "--format", "tflite"], "--format: expected one of onnx, torch-export, got tflite."),
        (["default", "--dtype", "int8"], "--dtype: expected one of float32, float16, got int8."),
        (["default"], "--format onnx: not installed: onnxruntime. Run `pip install onnxruntime`."),
        (["default", "full", "--format", "torch-export"], "full/: not empty"),
    ],
)
def test_bad_input_gets_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    present = {"onnx", "onnxscript"} if arguments == ["default"] else {"onnx", "onnxscript", "onnxruntime"}
    monkeypatch.setattr(export_module, "find_spec", lambda name: name if name in present else None)
    result = CliRunner().invoke(app, ["export", *arguments])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "notes.txt"]
