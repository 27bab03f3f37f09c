"""Tests of the kernel on its own, loaded as a user loads it.

Build it first; `LOCAL_KERNELS=hf-models/large-kernel-conv=PATH` tests a build that lies elsewhere.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
from kernels import get_kernel, get_local_kernel

REPO_ID = "hf-models/large-kernel-conv"


@pytest.fixture(scope="session")
def kernel():
    if f"{REPO_ID}=" in os.environ.get("LOCAL_KERNELS", ""):
        return get_kernel(REPO_ID, revision="v1")
    return get_local_kernel(Path(__file__).resolve().parents[1])


@pytest.fixture
def operators(kernel):
    return sys.modules[f"{kernel.__name__}._ops"].ops


def make_inputs(dtype=torch.float64, channels=3, size=(6, 5), kernel_size=(7, 5)):
    generator = torch.Generator().manual_seed(0)
    shapes = (2, channels, *size), (channels, 1, *kernel_size), (channels,)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def one_tap_at_a_time(input, weight, bias):
    """The definition: each tap of the kernel adds a shifted image."""
    height, width = weight.shape[2:]
    padded = torch.nn.functional.pad(input, (width // 2, width // 2, height // 2, height // 2))
    out = bias[:, None, None].expand_as(input).clone()
    for row, column in torch.cartesian_prod(torch.arange(height), torch.arange(width)).tolist():
        shifted = padded[:, :, row : row + input.shape[2], column : column + input.shape[3]]
        out += weight[:, :, row, column, None] * shifted
    return out


@pytest.mark.parametrize("path", ["amx", "avx512", "avx2", "portable"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "kernel_size"), [(16, (31, 31)), (35, (13, 15)), (5, (7, 51))])
def test_forward(kernel, operators, monkeypatch, path, dtype, layout, channels, kernel_size):
    monkeypatch.setenv("LARGE_KERNEL_CONV_CPU_PATH", path)
    inputs = make_inputs(dtype, channels, (19, 17), kernel_size)
    try:
        out = operators.depthwise_conv2d_forward(inputs[0].to(memory_format=layout), *inputs[1:])
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    expected = one_tap_at_a_time(*(tensor.double() for tensor in inputs))
    epsilon = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), expected, rtol=epsilon, atol=50 * epsilon * expected.abs().max().item())
    assert out.is_contiguous(memory_format=layout)


def test_small_kernels(kernel):
    """What the rule leaves to PyTorch is the same convolution."""
    inputs = make_inputs(kernel_size=(3, 3))
    torch.testing.assert_close(kernel.depthwise_conv2d(*inputs), one_tap_at_a_time(*inputs))


def test_gradients(kernel):
    inputs = [tensor.requires_grad_() for tensor in make_inputs()]
    assert torch.autograd.gradcheck(kernel.depthwise_conv2d, inputs)


def test_opcheck(operators):
    inputs = [tensor.requires_grad_() for tensor in make_inputs(torch.float32)]
    torch.library.opcheck(operators.depthwise_conv2d_forward.default, inputs)


def test_compile(kernel):
    inputs = make_inputs(torch.float32, 16, kernel_size=(15, 15))
    compiled = torch.compile(kernel.depthwise_conv2d, fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), kernel.depthwise_conv2d(*inputs))
