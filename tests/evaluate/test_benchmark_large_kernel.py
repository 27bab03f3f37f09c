"""The benchmarks of the large-kernel convolution: what is compared, kept and summed up. No times are tested."""

import runpy

import pytest
import torch
from kernels import get_local_kernel

from hf_models.evaluate.speed import large_kernel_operator
from hf_models.evaluate.speed.implementations import check_agreement
from hf_models.evaluate.speed.operators import OPERATORS
from hf_models.large_kernel_conv import depthwise_conv2d_reference

from ..harness.kernel_builder import KERNELS_SRC, built_kernel
from .test_benchmark import read_csv, run, small

__all__ = ["small"]  # a fixture
OPERATOR = OPERATORS["large-kernel-conv"]
BENCHMARKS = KERNELS_SRC / "large-kernel-conv" / "benchmarks"


@pytest.fixture(scope="module")
def kernel():
    (variant,) = (built_kernel("large-kernel-conv") / "build").glob("torch*-cpu-*")
    return get_local_kernel(variant)


@pytest.fixture
def with_kernel(kernel, monkeypatch):
    """The models' function, and the benchmark, find the kernel."""
    monkeypatch.setattr(large_kernel_operator, "get_function", lambda *_: kernel.depthwise_conv2d)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(2, 16, 9, 31), (1, 5, 12, 3)])
def test_every_implementation_computes_the_convolution(with_kernel, size, dtype):
    candidates = OPERATOR.implementations(size, dtype, "cpu")
    assert [candidate.name for candidate in candidates] == [
        "ours",
        "ours, NCHW",
        "ours, operator alone",
        "F.conv2d, NCHW",
        "F.conv2d, channels-last",
        "FFT",
    ]
    expected = depthwise_conv2d_reference(*(tensor.double() for tensor in candidates[0].inputs))
    for candidate in candidates:
        input, *_ = candidate.inputs
        assert input.is_contiguous() == (candidate.name.endswith("NCHW") or candidate.name == "FFT")
        out = candidate.function(*candidate.inputs)
        assert out.dtype == dtype
        check_agreement(candidate.name, out, expected)


def test_fft_is_exact_in_float64():
    for height, width, kernel_size in ((1, 1, 1), (7, 12, 5), (4, 9, 31)):
        inputs = [torch.randn(s).double() for s in ((2, 3, height, width), (3, 1, kernel_size, kernel_size), (3,))]
        out = large_kernel_operator.fft_convolution(*inputs)
        torch.testing.assert_close(out, depthwise_conv2d_reference(*inputs))


def test_rows_are_kept_and_resumed(small, tmp_path, monkeypatch):
    path = tmp_path / "operators.csv"
    command = "ops", "--operator", "large-kernel-conv", "--rounds", 1, "--results", path
    result = run(*command)
    assert "**large-kernel-conv, backward, float32, 1 thread**" in result.stdout
    rows = read_csv(path)
    assert {row["size"] for row in rows} == {"2 x 16 x 9 x 9, 15 x 15"}
    run(*command, "--dtypes", "float32", "--dtypes", "bfloat16", "--rounds", 2, "--resume")
    again = read_csv(path)
    assert again[: len(rows)] == rows and len(again) == 2 * len(rows)
    assert {row["dtype"] for row in again[len(rows) :]} == {"bfloat16"}
    run("ops", "--rounds", 1, "--no-backward", "--results", path)
    assert {row["operator"] for row in read_csv(path)} == {"large-kernel-conv", "deformable-conv"}


def test_a_gradient_that_differs_is_not_timed(small, monkeypatch):
    class WrongBias(torch.autograd.Function):
        @staticmethod
        def forward(ctx, bias):
            return bias.clone()

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    right = large_kernel_operator.pytorch
    monkeypatch.setattr(large_kernel_operator, "pytorch", lambda x, w, b: right(x, w, WrongBias.apply(b)))
    result = run("ops", "--operator", "large-kernel-conv", "--rounds", 1, code=1)
    assert str(result.exception).startswith("F.conv2d, NCHW, backward: differs by 1.0e+00")


def test_only_a_gpu_is_given_the_papers_shapes_by_default():
    assert OPERATOR.large_shapes["paper32"] == (64, 384, 32, 31)
    assert not OPERATOR.shapes.keys() & OPERATOR.large_shapes.keys()


def test_the_kernels_own_benchmark_measures_the_same_shapes():
    assert runpy.run_path(str(BENCHMARKS / "benchmark.py"))["SHAPES"] == OPERATOR.shapes


@pytest.fixture
def sweep():
    return runpy.run_path(str(BENCHMARKS / "sweep.py"))


def row_of(sweep, **values):
    return {**dict.fromkeys(sweep["COLUMNS"], "x"), **dict.fromkeys(sweep["TIMES"], 1.0), **values}


def test_summary_of_the_sweep(sweep, tmp_path):
    path = tmp_path / "sweep.csv"
    rows = [
        row_of(sweep),
        # 0.5 in channels-first, where converting helps PyTorch; 2 in channels-last, which is the best for both
        row_of(sweep, function_channels_first=2.0, pytorch_channels_first=3.0, pytorch_channels_last=2.0)
        | {"converted_channels_last": 3.0},
        row_of(sweep, pytorch_channels_first=None, converted_channels_last=None),
    ]
    assert [list(sweep["speeds"](row).values()) for row in rows] == [[1, 1], [0.5, 2], [1, 1]]
    assert [sweep["speed_in_best_layouts"](row) for row in rows] == [1, 2, 1]
    sweep["write"](path, rows)
    assert sweep["read"](path) == rows
    assert sweep["summary"](path) == (
        "3 shapes, float32 and bfloat16, one thread (x; torch x, x, x):\n\n"
        "- Where input and output must have a given memory layout, the public function is at least 0.50x as fast as "
        "PyTorch's best, which may convert to the other layout and back. It is less than 0.95x as fast in 1 of 6 "
        "cases.\n"
        "- Where both may choose their layout, it is at least 1.00x as fast. It is less than 0.95x as fast in 0 of 3 "
        "cases.\n"
    )


def test_suspects_of_the_sweep_are_measured_again(sweep):
    measured = iter(
        [
            row_of(sweep, function_channels_first=2.0, pytorch_channels_first=None),
            row_of(sweep, pytorch_channels_first=None, pytorch_channels_last=0.9),
            row_of(sweep, function_channels_last=0.9, pytorch_channels_first=None),
        ]
    )
    seconds = []

    def measure(*arguments):
        seconds.append(arguments[-1])
        return {name: value for name, value in next(measured).items() if name in sweep["TIMES"]}

    until_sure = sweep["measure_until_sure"]
    until_sure.__globals__["measure"] = measure
    times = until_sure("kernel", "shape", seconds=0.1)
    assert seconds == [0.1, 0.4, 0.4]
    expected = dict.fromkeys(sweep["TIMES"], 1.0) | {"pytorch_channels_first": None}
    assert times == expected | {"pytorch_channels_last": 0.9, "function_channels_last": 0.9}


def test_sweep_is_kept_and_resumed(sweep, kernel, tmp_path, monkeypatch, capsys):
    path, main = tmp_path / "sweep.csv", sweep["main"]
    variant = built_kernel("large-kernel-conv") / "build"
    monkeypatch.setitem(main.__globals__, "MAPS", [(3, 4, 5), (16, 5, 4)])
    monkeypatch.setitem(main.__globals__, "KERNEL_SIZES", (3, 15))
    monkeypatch.setitem(main.__globals__, "get_local_kernel", lambda folder: kernel)
    monkeypatch.setattr("sys.argv", ["sweep.py", str(variant), "--results", str(path), "--seconds", "0"])
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    main()
    rows = sweep["read"](path)
    assert len(rows) == 2 * 2 * 2 * 2 and {row["kernel"] for row in rows} == {kernel.__name__}
    for row in rows:
        large, odd = row["kernel_size"] == "15", (row["dtype"], row["channels"]) == ("bfloat16", "3")
        left_out = {name for name in sweep["TIMES"] if row[name] is None}
        if not large:
            assert not left_out
        elif odd:
            assert left_out == {"pytorch_channels_last", "converted_channels_first"}
        else:
            assert left_out == {"pytorch_channels_first", "converted_channels_last"}
    sweep["write"](path, [row | {"kernel": "another"} if row["channels"] == "3" else row for row in rows])
    main()
    again = sweep["read"](path)
    assert [row for row in again if row["channels"] != "3"] == [row for row in rows if row["channels"] != "3"]
    assert {row["kernel"] for row in again} == {kernel.__name__}
    path.write_text("dtype,batch\nfloat32,1\n")
    with pytest.raises(SystemExit):
        main()
    assert "not a results file of this script" in capsys.readouterr().err
