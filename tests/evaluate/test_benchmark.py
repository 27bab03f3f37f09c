"""The benchmarks: that all compute the same, what is kept, what the tables say. No times are tested."""

import csv
import dataclasses
import runpy
import sys

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.deformable_aggregate import deformable_aggregate_reference
from hf_models.errors import InputError
from hf_models.evaluate.results import MODELS, OPERATORS, merge_results, read_results
from hf_models.evaluate.speed import peers, tables
from hf_models.evaluate.speed.implementations import check_agreement
from hf_models.evaluate.speed.operators import OPERATORS as BY_NAME
from hf_models.evaluate.speed.timing import interleave

from ..harness.kernel_builder import KERNELS_SRC

SIZE = (2, 7, 14, 2, 4)


def run(command, *arguments, code=0):
    device = ["--device", "cpu"] if command in ("ops", "models", "detectors") else []
    result = CliRunner().invoke(app, ["benchmark", command, *device, *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def row_of(form, **values):
    return {column: "1" for column in form.columns} | {"device": "a CPU", "torch": "2.0", "kernel": "k"} | values


@pytest.fixture
def small(monkeypatch):
    """One small shape of each operator."""
    for name, size in (("deformable-conv", SIZE), ("large-kernel-conv", (2, 16, 9, 15))):
        operator = dataclasses.replace(BY_NAME[name], shapes={"small": size}, large_shapes={})
        monkeypatch.setitem(BY_NAME, name, operator)


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_implementation_that_should_computes_the_aggregation(dtype):
    candidates = BY_NAME["deformable-conv"].implementations(SIZE, dtype, "cpu")
    exact = [tensor.double() for tensor in candidates[0].inputs]
    expected = deformable_aggregate_reference(*exact, kernel_size=3, padding=1)
    checked = [candidate.name for candidate in candidates if candidate.same_result]
    assert checked[:4] == ["ours", "ours, fused softmax", "ours after F.softmax", "grid_sample"]
    assert ("torch-ms-deform-attn" in checked) == (peers.deformable_attention() is not None)
    for candidate in candidates:
        out = candidate.function(*candidate.inputs)
        assert out.dtype == dtype
        if candidate.same_result:
            check_agreement(candidate.name, out, expected)


def deform_conv2d_by_definition(x, offset, weight, padding, mask):
    """torchvision's DCNv2, depthwise with a kernel of ones: the same samples as `grid_sample` takes, row by row."""
    channels, height, width = x.shape[1:]
    groups = mask.shape[1] // 9
    assert padding == 1 and weight.shape == (channels, 1, 3, 3) and weight.eq(1).all()
    images = x.unflatten(1, (groups, -1)).flatten(0, 1)
    offset, mask = (
        given.unflatten(1, (groups, 9, -1)).flatten(0, 1) for given in (offset, mask)
    )  # (N G, 9, 2 or 1, H, W)
    out = 0
    for point in range(9):
        row = torch.arange(height, dtype=x.dtype)[:, None] + point // 3 - 1 + offset[:, point, 0]
        column = torch.arange(width, dtype=x.dtype) + point % 3 - 1 + offset[:, point, 1]
        grid = torch.stack(((2 * column + 1) / width - 1, (2 * row + 1) / height - 1), dim=-1)
        out = out + F.grid_sample(images, grid, align_corners=False) * mask[:, point]
    return out.reshape(x.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dcn_v2_with_a_kernel_of_ones_is_the_aggregation(monkeypatch, dtype):
    monkeypatch.setattr(peers, "deform_conv2d", peers.deform_conv2d or deform_conv2d_by_definition)
    candidates = {one.name: one for one in BY_NAME["deformable-conv"].implementations(SIZE, dtype, "cpu")}
    ours, theirs = candidates["ours"], candidates["DCNv2 (torchvision)"]
    assert theirs.same_result
    check_agreement("DCNv2", theirs.function(*theirs.inputs), ours.function(*ours.inputs))


def test_a_wrong_result_is_never_timed():
    with pytest.raises(RuntimeError, match=r"wrong: differs by 1\.0e"):
        check_agreement("wrong", torch.zeros(3), torch.ones(3))
    with pytest.raises(RuntimeError, match="differs by nan"):
        check_agreement("wrong", torch.full((3,), torch.nan), torch.ones(3))


def test_the_second_run_of_a_round_counts():
    times = iter(range(-8, 0))
    runs = {"a": lambda: next(times), "b": lambda: next(times)}
    assert interleave(runs, 2, 60, lambda: None) == {"a": [-7, -3], "b": [-5, -1]}


def test_slow_runs_have_fewer_rounds(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def run(seconds):
        clock[0] += seconds
        return seconds

    runs = {"slow": lambda: run(1.0), "fast": lambda: run(0.25)}
    rounds = []
    assert interleave(runs, 5, 1.75, lambda: rounds.append(None)) == {"slow": [1.0] * 2, "fast": [0.25] * 4}
    assert len(rounds) == 5
    assert interleave(runs, 5, 0, lambda: None) == {"slow": [1.0], "fast": [0.25]}, "each is timed once"


def test_ops_are_kept_and_replaced(small, tmp_path):
    path = tmp_path / "operators.csv"
    result = run("ops", "--rounds", 1, "--dtypes", "float32", "--dtypes", "bfloat16", "--results", path)
    assert "**deformable-conv, backward, bfloat16, 1 thread**" in result.stdout
    rows = read_csv(path)
    assert {(row["shape"], row["batch_size"], row["size"]) for row in rows} == {("small", "2", "2 x 7 x 14, 2 x 4")}
    assert {row["direction"] for row in rows} == {"forward", "backward"}
    assert {"ours", "grid_sample", "depthwise 7x7", "window attention 7x7"} < {row["implementation"] for row in rows}
    run("ops", "--rounds", 2, "--no-backward", "--results", path)
    run("ops", "--rounds", 1, "--no-backward", "--batch-size", 1, "--threads", 1, "--threads", 2, "--results", path)
    again = read_csv(path)
    assert [OPERATORS.key(row) for row in again[: len(rows)]] == [OPERATORS.key(row) for row in rows]
    assert {row["rounds"] for row in again if (row["direction"], row["dtype"]) == ("forward", "float32")} == {"1", "2"}
    assert {row["threads"] for row in again[len(rows) :]} == {"1", "2"}
    assert [file.name for file in tmp_path.iterdir()] == ["operators.csv"]


def test_missing_peers_are_said_to_be_missing(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_ms_deform_attn", None)
    result = run("ops", "--rounds", 1, "--no-backward")
    assert "pip install --no-build-isolation torch-ms-deform-attn" in result.stderr
    assert "torch-ms-deform-attn" not in result.stdout and "grid_sample" in result.stdout


def test_exported_models_are_timed_and_kept(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    path = tmp_path / "export.csv"
    result = run("export", "--threads", 1, "--threads", 2, "--rounds", 2, "--results", path)
    rows = read_csv(path)
    assert [(row["threads"], row["runtime"]) for row in rows] == [
        (threads, runtime) for threads in "12" for runtime in ("onnxruntime", "PyTorch")
    ]
    assert {(row["model"], row["image"], row["rounds"]) for row in rows} == {("embedded default", "96 x 96", "2")}
    ratio = tables.number(float(rows[1]["minimum_ms"]) / float(rows[0]["minimum_ms"]))
    assert f"| embedded default | {rows[0]['file_megabytes']} | 96 x 96 | 1 | 1 |" in result.stdout
    assert f"| {ratio}x |" in result.stdout
    assert run("export", "--model", tmp_path / "none", code=2).stderr.splitlines()[-1].startswith(f"{tmp_path}/none: ")


@pytest.mark.parametrize("raised", [True, False])
def test_page_faults_are_warned_of(small, monkeypatch, tmp_path, raised):
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.setenv(name, "4294967296")
        if not raised:
            monkeypatch.delenv(name)
    path = tmp_path / "operators.csv"
    result = run("ops", "--rounds", 1, "--no-backward", "--results", path)
    assert ("MALLOC_TRIM_THRESHOLD_=4294967296" in result.stderr) != raised
    assert {row["malloc_thresholds"] for row in read_csv(path)} == {"raised" if raised else "default"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ops", "--shapes", "seed57"], "seed57: no such shape. Choose from seed56"),
        (["ops", "--dtypes", "int8"], "int8: no such dtype. Choose from float32, bfloat16, float16."),
        (["ops", "--device", "tpu"], "tpu: no such device"),
        (["ops", "--operator", "conv"], "conv: no such operator. Choose from deformable-conv, large-kernel-conv, "),
        (
            ["ops", "--operator", "large-kernel-conv", "--shapes", "seed56"],
            "seed56: no such shape. Choose from 56x31_1",
        ),
        (["ops", "--results", "missing/folder.csv"], "missing/folder.csv: cannot be written"),
    ],
)
def test_bad_choices_are_one_line(arguments, message):
    lines = run(*arguments, code=2).stderr.splitlines()
    assert lines[-1].startswith(message)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    assert "cuda: PyTorch finds no GPU" in run("ops", "--device", "cuda", code=2).stderr


HEADER = ",".join(MODELS.columns)
GOOD = ",".join("1" for _ in MODELS.columns)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"model,top1\nsmt,82\n",
        f"{HEADER}\n{GOOD},1\n".encode(),
        f"{HEADER}\n1,1\n".encode(),
        f"{HEADER}\n{GOOD.replace('1', 'fast')}\n".encode(),
        f"{HEADER}\n{GOOD.replace('1', 'nan')}\n".encode(),
        f'{HEADER}\n"1'.encode(),
        b"\xff\xfe\x00",
        None,
    ],
)
def test_a_bad_file_is_one_line_and_stays(tmp_path, content):
    path = tmp_path / "models.csv"
    path.mkdir() if content is None else path.write_bytes(content)
    for command in (["models", "--results", path], ["table", "--models", path]):
        (line,) = run(*command, code=2).stderr.splitlines()
        assert line.startswith(f"{path}: not a results file of this command (")
    assert content is None or path.read_bytes() == content


def test_a_file_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    path = tmp_path / "models.csv"
    merge_results(path, [row_of(MODELS, model="a")], MODELS)
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match="cannot be written"):
        merge_results(path, [row_of(MODELS, model="b")], MODELS)
    assert [row["model"] for row in read_results(path, MODELS)] == ["a"]
    assert len(list(tmp_path.iterdir())) == 1


def test_operators_table(tmp_path):
    cells = [
        ("ours", "1", "seed56", "3.8", "38.0"),
        ("grid_sample", "1", "seed56", "96.6", "963"),
        ("depthwise 7x7", "1", "seed56", "3.17", "31"),
        ("ours", "1", "T7", "0.25", "19.9"),
        ("grid_sample", "1", "T7", "1234.5", "99"),
        ("ours", "2", "T7", "0.5", "20"),
    ]
    path = tmp_path / "operators.csv"
    keys = "implementation", "threads", "shape", "minimum_ms", "minimum_ns_per_unit"
    rows = [
        row_of(OPERATORS, operator="deformable-conv", **dict(zip(keys, c, strict=True)), size="s", dtype="float32")
        | {"direction": "forward"}
        for c in cells
    ]
    merge_results(path, rows, OPERATORS)
    assert tables.operators_table(path) == (
        "**deformable-conv, forward, float32, 1 thread** (a CPU; torch 2.0, k, 1)\n"
        "\n"
        "| shape | N x H x W, groups x channels | ours, ms | ns per unit | as fast as grid_sample "
        "| as fast as depthwise 7x7 |\n"
        "| --- | --- | --: | --: | --: | --: |\n"
        "| seed56 | s | 3.80 | 38.0 | 25.4x | 0.834x |\n"
        "| T7 | s | 0.250 | 19.9 | 4938x |  |\n"
        "\n"
        "**deformable-conv, forward, float32, 2 threads** (a CPU; torch 2.0, k, 1)\n"
        "\n"
        "| shape | N x H x W, groups x channels | ours, ms | ns per unit |\n"
        "| --- | --- | --: | --: |\n"
        "| T7 | s | 0.500 | 20.0 |\n"
    )


def test_without_results(tmp_path):
    assert tables.operators_table(tmp_path / "none.csv") == "Not measured yet.\n"


def test_the_kernels_own_benchmark_measures_the_same_shapes():
    module = runpy.run_path(str(KERNELS_SRC / "deformable-conv" / "benchmarks" / "benchmark.py"))
    assert module["SHAPES"] == BY_NAME["deformable-conv"].shapes
    for name in ("Forward", "ForwardWithSoftmax", "Backward"):
        instance = module[name]()
        instance.kernel = type("Kernel", (), {"deformable_aggregate": staticmethod(deformable_aggregate_reference)})
        instance.setup_T7()
        instance.benchmark_T7()
        expected = instance.verify_T7()
        torch.testing.assert_close(instance.out, expected, rtol=1e-4, atol=1e-3)
