"""The CUDA source of the large-kernel convolution on the CPU: compiled against an emulated device, against float64.

This shows that indices, synchronisation and arithmetic are right. It does not show that the kernel runs on a GPU.
"""

import shutil
import sys

import pytest
import torch
from filelock import FileLock
from kernels import get_local_kernel

from ..harness.kernel_builder import KERNELS_SRC, load_build, skip_without_compiler
from . import test_large_kernel as kernel_tests

BUILD_TOML = """
[general]
name = "large-kernel-conv"
version = 1
edition = 5
license = "MIT"
backends = ["cpu"]
[torch]
src = ["torch-ext/torch_binding.cpp", "torch-ext/torch_binding.h"]
[torch.stable-abi]
cpu = "2.11"
[kernel.emulated]
backend = "cpu"
depends = ["torch"]
include = ["large_kernel_conv_common", "large_kernel_conv_cpu", "large_kernel_conv_cuda", "tests"]
src = [{sources}]
"""


@pytest.fixture(scope="session")
def kernel():
    """The kernel for CPU tensors, made of the CUDA kernel's source."""
    skip_without_compiler()
    source = KERNELS_SRC / "large-kernel-conv"
    folder = source / "build" / "emulated"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        parts = ("torch-ext", *(f"large_kernel_conv_{part}" for part in ("common", "cpu", "cuda")), "tests")
        for part in parts:
            shutil.rmtree(folder / part, ignore_errors=True)
            shutil.copytree(source / part, folder / part)
        operator = folder / "large_kernel_conv_cuda" / "large_kernel_conv_cuda.cu"
        operator.rename(operator.with_suffix(".cpp"))
        sources = [*folder.glob("large_kernel_conv_c*/*"), *folder.glob("tests/cuda_emulator.*")]
        names = [path.relative_to(folder) for path in sources if "large_kernel_conv_cpu" not in path.parts]
        toml = BUILD_TOML.format(sources=", ".join(f'"{name}"' for name in sorted(names)))
        (folder / "build.toml").write_text(toml)
        build = load_build()
        build._check_library = lambda library: None  # it stays on this machine
        variant = build.build_kernel(folder)
    return get_local_kernel(variant)  # by its own folder, as a PyTorch for GPUs would choose another


@pytest.fixture(params=["forward", "reverse"])
def path(request, kernel, monkeypatch):
    """The order in which threads and blocks take turns: no result may depend on it."""
    monkeypatch.setenv("EMULATOR_ORDER", request.param)
    return request.param


@pytest.fixture
def operators(kernel):
    return sys.modules[f"{kernel.__name__}._ops"].ops


always = kernel_tests.always
test_half_precision_rounds_once = kernel_tests.test_half_precision_rounds_once
test_poison = kernel_tests.test_poison_reaches_only_the_windows_that_have_it
test_gradients_of_both_orders = kernel_tests.test_gradients_of_both_orders
test_opcheck = kernel_tests.test_opcheck
test_empty_inputs = kernel_tests.test_empty_inputs
test_operators_check_what_they_read = kernel_tests.test_operators_check_what_they_read


def test_it_is_the_emulated_kernel_that_is_tested(kernel):
    assert kernel.cpu_path() == "emulated"


def test_random_cases(always, path):
    kernel_tests.check_random_cases(always, range(40))


@pytest.mark.slow
def test_many_random_cases(always, path):
    kernel_tests.check_random_cases(always, range(1000, 2000))


def results(function, input, weight, bias, gradient):
    """Output, and the gradients of input, weight and bias."""
    inputs = [tensor.detach().requires_grad_() for tensor in (input, weight, bias)]
    out = function(*inputs)
    out.backward(gradient)
    return [out.detach(), *(tensor.grad for tensor in inputs)]


def make_case(batch, channels, size, kernel_size, dtype, layout=torch.contiguous_format):
    input, weight, bias = kernel_tests.random_inputs(batch, channels, size, kernel_size, dtype)
    gradient = kernel_tests.random_inputs(batch, channels, size, kernel_size, dtype, seed=1)[0]
    return input.to(memory_format=layout), weight, bias, gradient.to(memory_format=layout)


@pytest.mark.parametrize("dtype", kernel_tests.DTYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("batch", "channels", "size", "kernel_size"),
    [
        (3, 20, (7, 7), (13, 13)),
        (2, 16, (14, 14), (27, 27)),  # columns of 28 bytes
        (1, 3, (40, 28), (31, 29)),
        (2, 9, (33, 17), (3, 31)),  # one more than tiles have
        (1, 2, (8, 40), (51, 51)),  # the largest kernel
        (1, 1, (300, 9), (5, 3)),  # more rows than a block has
        (1, 5, (2, 150), (1, 35)),  # more columns than steps of 16 that a warp has
    ],
)
def test_every_number(always, monkeypatch, batch, channels, size, kernel_size, dtype, layout):
    """Exact to the rounding of the result, and of sums in the arithmetic's precision, in any order of threads."""
    case = make_case(batch, channels, size, kernel_size, dtype, layout)
    ours = results(always, *case)
    exact = results(kernel_tests.exact, *(tensor.double() for tensor in case))
    terms = results(kernel_tests.exact, *(tensor.double().abs() for tensor in case))
    precision = 2**-50 if dtype == torch.float64 else 2**-21
    for actual, expected, of_terms in zip(ours, exact, terms, strict=True):
        allowed = precision * of_terms + torch.finfo(dtype).eps * expected.abs()
        assert ((actual.double() - expected).abs() <= allowed).all()
    monkeypatch.setenv("EMULATOR_ORDER", "reverse")
    assert all(map(torch.equal, ours, results(always, *case)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_does_not_depend_on_its_company(always, path, dtype):
    input, weight, bias, _ = make_case(3, 9, (15, 18), (13, 7), dtype)
    together = always(input, weight, bias)
    assert all(torch.equal(together[i : i + 1], always(input[i : i + 1], weight, bias)) for i in range(3))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_memory_that_is_not_aligned(always, dtype, layout):
    case = make_case(2, 16, (9, 16), (7, 5), dtype, layout)
    expected = results(always, *case)
    for shift in (1, 2, 4):
        moved = [torch.cat((t.new_zeros(shift), t.permute(0, 2, 3, 1).flatten()))[shift:] for t in (case[0], case[3])]
        input, gradient = (t.view(2, 9, 16, 16).permute(0, 3, 1, 2) for t in moved)
        if layout == torch.contiguous_format:
            moved = [torch.cat((t.new_zeros(shift), t.flatten()))[shift:] for t in (case[0], case[3])]
            input, gradient = (t.view(2, 16, 9, 16) for t in moved)
        assert all(map(torch.equal, expected, results(always, input, *case[1:3], gradient)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_part_of_a_larger_tensor(always, dtype, layout):
    case = make_case(2, 16, (9, 16), (7, 5), dtype, layout)
    parts = case[0][:, :9, 1:, :13], case[1][:9], case[2][:9], case[3][:, :9, 1:, :13]
    expected = results(always, *(part.clone(memory_format=torch.contiguous_format) for part in parts))
    # the gradient of the bias is PyTorch's sum, whose order depends on the layout
    assert all(map(torch.equal, expected[:3], results(always, *parts)[:3]))


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float64, 1e-10), (torch.bfloat16, 1e-4)])
def test_more_images_than_blocks_for_the_gradient_of_the_weight(operators, dtype, precision):
    input, weight, bias, gradient = make_case(1100, 1, (26, 1), (51, 9), dtype)
    expected = results(kernel_tests.exact, *(t.double() for t in (input, weight, bias, gradient)))[2]
    actual = operators.depthwise_conv2d_backward_weight(gradient, input, [51, 9])
    torch.testing.assert_close(actual.double(), expected, rtol=torch.finfo(dtype).eps, atol=precision)


@pytest.mark.parametrize("poisoned", ["input", "gradient"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "kernel_size"), [((20, 21), (7, 5)), ((5, 40), (3, 51))])
def test_poison_reaches_only_the_weights_that_meet_it(always, path, dtype, size, kernel_size, poisoned):
    input, weight, bias, gradient = make_case(2, 3, size, kernel_size, dtype)
    poison, other = (input, gradient) if poisoned == "input" else (gradient, input)
    poison[1, 2, 1, 2] = float("inf")
    where, ones = poison.isinf().double(), torch.ones_like(other).double()
    marks = (where, ones) if poisoned == "input" else (ones, where)
    meets = results(kernel_tests.exact, marks[0], weight.double(), bias.double(), marks[1])[2] != 0
    ours = results(always, input, weight, bias, gradient)[2]
    assert meets.any() and not meets.all()
    assert torch.equal(~ours.isfinite(), meets)
    clean = results(always, input.nan_to_num(posinf=0), weight, bias, gradient.nan_to_num(posinf=0))[2]
    torch.testing.assert_close(ours[~meets], clean[~meets])


def test_kernels_that_are_too_large(operators):
    input, weight, bias, gradient = make_case(1, 1, (3, 3), (53, 3), torch.float32)
    with pytest.raises(RuntimeError, match=r"kernel_size: expected at most \(51, 51\) on a GPU, got \(53, 3\)"):
        operators.depthwise_conv2d_forward(input, weight, bias)
    with pytest.raises(RuntimeError, match=r"kernel_size: expected at most \(51, 51\) on a GPU, got \(53, 3\)"):
        operators.depthwise_conv2d_backward_weight(gradient, input, [53, 3])
