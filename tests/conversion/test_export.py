"""Export to ONNX and torch.export: what is written computes what PyTorch does; what is wrong is not written."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, BitImageProcessorPil
from typer.testing import CliRunner

from hf_models import hub_kernels
from hf_models.cli import app
from hf_models.conversion.export import export
from hf_models.conversion.export import model as export_module
from hf_models.conversion.export.formats import Format

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


def require_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


def onnx_session(folder: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")


def run_in_openvino(file: Path, pixel_values: torch.Tensor) -> torch.Tensor:
    """The first output in float32: by itself OpenVINO computes in bfloat16 where the processor can."""
    core = pytest.importorskip("openvino").Core()
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(compiled([pixel_values.numpy()])[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_runs_any_batch_size_in_both_runtimes(family, tmp_path):
    require_onnx()
    source, model = saved(family, tmp_path / "model")
    report = export(source, tmp_path / "onnx")
    files = {path.relative_to(tmp_path / "onnx").as_posix() for path in (tmp_path / "onnx").rglob("*.*")}
    assert files == {"onnx/model.onnx", "config.json", "preprocessor_config.json"}
    assert report.file == tmp_path / "onnx" / "onnx" / "model.onnx"
    assert report.size == report.file.stat().st_size
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert config["id2label"]["3"] == "class 3"
    assert config["exported_from"]["model_type"] == family
    assert "auto_map" not in config | config["exported_from"], "names files that are not there"
    session = onnx_session(tmp_path / "onnx")
    assert [(tensor.name, tensor.shape) for tensor in session.get_inputs()] == [("pixel_values", ["batch", 3, 64, 64])]
    assert [(tensor.name, tensor.shape) for tensor in session.get_outputs()] == [("logits", ["batch", 10])]
    for batch_size in (1, 5):
        pixel_values = images(batch_size, 3, 64, 64)
        (logits,) = session.run(["logits"], {"pixel_values": pixel_values.numpy()})
        assert_same(torch.from_numpy(logits), model, pixel_values)
        if find_spec("openvino"):
            assert_same(run_in_openvino(report.file, pixel_values), model, pixel_values)


def test_onnx_of_one_batch_size(tmp_path):
    require_onnx()
    source, model = saved("replknet", tmp_path / "model")
    report = export(source, tmp_path / "onnx", batch_size=2)
    assert report.shape == (2, 3, 64, 64)
    session = onnx_session(tmp_path / "onnx")
    assert [tensor.shape for tensor in session.get_inputs()] == [[2, 3, 64, 64]]
    pixel_values = images(2, 3, 64, 64)
    assert_same(torch.from_numpy(session.run(None, {"pixel_values": pixel_values.numpy()})[0]), model, pixel_values)


def test_onnx_runs_other_sizes(tmp_path):
    require_onnx()
    source, model = saved("replknet", tmp_path / "model")
    report = export(source, tmp_path / "onnx", dynamic=True)
    session = onnx_session(tmp_path / "onnx")
    pixel_values = images(1, 3, 160, 32)
    assert_same(torch.from_numpy(session.run(None, {"pixel_values": pixel_values.numpy()})[0]), model, pixel_values)
    assert str(tmp_path).encode() not in report.file.read_bytes()
    assert b"modeling_replknet.py" not in report.file.read_bytes()


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


def test_a_size_that_is_no_multiple_of_the_stride_is_rounded_up(tmp_path):
    source, model = saved("replknet", tmp_path / "model")
    crop = {"height": 72, "width": 72}
    BitImageProcessorPil(size={"shortest_edge": 72}, crop_size=crop).save_pretrained(source)
    report = export(source, tmp_path / "program", format="torch-export", dynamic=True)
    assert report.shape == ("batch", 3, "32*rows", "32*columns")
    pixel_values = images(1, 3, 64, 128)
    (logits,) = torch.export.load(report.file).module()(pixel_values)
    assert_same(logits, model, pixel_values)


def test_a_program_keeps_its_config(tmp_path):
    source, _ = saved("smt", tmp_path / "model")
    export(source, tmp_path / "program", format="torch-export")
    assert AutoConfig.from_pretrained(tmp_path / "program").model_type == "smt"


def test_steps_are_told(tmp_path):
    source, _ = saved("replknet", tmp_path / "model")
    steps = []
    export(source, tmp_path / "program", format="torch-export", progress=steps.append)
    assert [step.split()[0] for step in steps] == ["loading", "recording", "writing", "checking"]


def logits_only(family: str) -> nn.Module:
    """A tiny classifier as a user would export it who has not heard of `hf-models export`."""
    tester, config = FAMILIES[family]
    model = tester().classifier(**config).eval()
    model.config.return_dict = False
    return model


@pytest.mark.filterwarnings("ignore")  # the tracers warn of every shape that is read
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("gradients", [False, True])
def test_a_traced_program_holds_no_kernel(family, gradients, monkeypatch):
    def looked_for(*_):
        raise AssertionError("a kernel was looked for")

    model = logits_only(family)
    monkeypatch.setattr(hub_kernels, "_has_kernel", looked_for)
    example = images(2, 3, 64, 64)
    with torch.set_grad_enabled(gradients):
        program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        traced = torch.jit.trace(model, example, strict=False, check_trace=False)
    operators = {
        getattr(node.target, "namespace", "aten") for node in program.graph.nodes if node.op == "call_function"
    }
    kinds = {node.kind().split("::")[0] for node in traced.inlined_graph.nodes()}
    assert operators == {"aten"} and kinds <= {"aten", "prim"}
    monkeypatch.undo()
    pixel_values = images(3, 3, 64, 64)
    with torch.no_grad():
        (expected,) = model(pixel_values)
        for run in (program.module(), traced):
            torch.testing.assert_close(run(pixel_values)[0], expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "dynamo"),
    [("flash_internimage", True), *((family, False) for family in FAMILIES)],  # the other exporter takes its time
)
def test_a_plain_onnx_export_is_right_and_has_no_loop(family, dynamo, tmp_path):
    require_onnx()
    import onnx
    import onnxruntime

    model, file = logits_only(family), tmp_path / "model.onnx"
    shapes = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    with torch.no_grad():
        torch.onnx.export(
            model, (images(2, 3, 64, 64),), file, dynamo=dynamo, input_names=["x"], verbose=False, **shapes
        )
        pixel_values = images(3, 3, 64, 64)
        (expected,) = model(pixel_values)
    assert "Loop" not in {node.op_type for node in onnx.load(file).graph.node}
    session = onnxruntime.InferenceSession(file)
    for logits in (session.run(None, {"x": pixel_values.numpy()})[0], run_in_openvino(file, pixel_values)):
        torch.testing.assert_close(
            torch.as_tensor(logits), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item()
        )


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
    monkeypatch.setitem(export_module.FORMATS, "torch-export", Format("model.pt2", writer))
    result = CliRunner().invoke(app, ["export", source, str(tmp_path / "out"), "--format", "torch-export"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{source}: ") and message in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["full"], "full: cannot be loaded as a model"),
        (["default", "--format", "tflite"], "--format: expected one of onnx, torch-export, aoti, got tflite."),
        (["default", "--batch-size", "0"], "--batch-size: expected 1 or more, got 0."),
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
