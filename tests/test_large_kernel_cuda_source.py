"""The CUDA source of the large-kernel convolution on the CPU: compiled against an emulated device, against float64.

This shows that indices, synchronisation and arithmetic are right. It does not show that the kernel runs on a GPU.
"""

import random
import shutil
import sys

import pytest
import torch
from filelock import FileLock
from kernels import get_local_kernel
from torch.nn import functional as F

from .kernel_builder import KERNELS_SRC, load_build, skip_without_compiler

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
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
        build.build_kernel(folder)
    return get_local_kernel(folder)


@pytest.fixture(params=["forward", "reverse"])
def order(request, monkeypatch):
    """The order in which threads and blocks take turns: no result may depend on it."""
    monkeypatch.setenv("EMULATOR_ORDER", request.param)
    return request.param


def results(function, input, weight, bias, grad_output):
    """Output, and the gradients of input, weight and bias."""
    inputs = [tensor.detach().requires_grad_() for tensor in (input, weight, bias)]
    out = function(*inputs)
    out.backward(grad_output)
    return [out.detach(), *(tensor.grad for tensor in inputs)]


def conv2d(input, weight, bias):
    padding = [size // 2 for size in weight.shape[2:]]
    return F.conv2d(input, weight, bias, padding=padding, groups=input.shape[1])


def random_case(seed, dtype):
    """Input, weight, bias, gradient of the output."""
    pick, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    batch, channels = pick.choice([1, 1, 2, 3]), pick.choice([1, 2, 3, 8, 9, 16, 20])
    height, width = (pick.choice([1, 2, 7, 8, 14, 15, 16, 17, 28, 31, 32, 33, 40]) for _ in range(2))
    kernel_size = [pick.choice([1, 3, 5, 7, 13, 15, 17, 27, 31]) for _ in range(2)]
    while channels * batch * height * width * kernel_size[0] * kernel_size[1] > 2e6:
        channels, batch, kernel_size[0] = max(channels // 2, 1), 1, max(kernel_size[0] // 2 | 1, 3)
    shapes = [(batch, channels, height, width), (channels, 1, *kernel_size), (channels,)]
    tensors = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in [*shapes, shapes[0]]]
    tensors = [tensor.to(dtype) for tensor in tensors]
    if pick.random() < 0.5:
        tensors[0], tensors[3] = (tensors[i].to(memory_format=torch.channels_last) for i in (0, 3))
    return tensors


def check(kernel, tensors):
    """Against float64, to the rounding of the result and of sums in the arithmetic's own precision."""
    dtype = tensors[0].dtype
    ours = results(kernel.depthwise_conv2d, *tensors)
    exact = results(conv2d, *(tensor.double() for tensor in tensors))
    # sums of the same products without signs: what rounding errors are relative to
    scale = results(conv2d, *(tensor.double().abs() for tensor in tensors))
    arithmetic = 2**-50 if dtype == torch.float64 else 2**-21
    for actual, expected, size in zip(ours, exact, scale, strict=True):
        assert actual.dtype == dtype and actual.shape == expected.shape
        allowed = arithmetic * size + torch.finfo(dtype).eps * expected.abs() + torch.finfo(dtype).tiny
        assert ((actual.double() - expected).abs() <= allowed).all()
    assert ours[0].stride() == tensors[0].stride()
    return ours


def test_it_is_the_emulated_kernel_that_is_tested(kernel):
    assert kernel.cpu_path() == "emulated"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(12))
def test_random_cases(kernel, monkeypatch, seed, dtype):
    """Also, that nothing depends on the order of threads."""
    tensors = random_case(seed, dtype)
    ours = check(kernel, tensors)
    monkeypatch.setenv("EMULATOR_ORDER", "reverse")
    assert all(map(torch.equal, ours, results(kernel.depthwise_conv2d, *tensors)))
