"""Tests of the kernel on its own, loaded as a user loads it.

Build it first; `LOCAL_KERNELS=hf-models/deformable-conv=PATH` tests a build that lies elsewhere.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
from kernels import get_kernel, get_local_kernel

REPO_ID = "hf-models/deformable-conv"


@pytest.fixture(scope="session")
def kernel():
    if f"{REPO_ID}=" in os.environ.get("LOCAL_KERNELS", ""):
        return get_kernel(REPO_ID, revision="v1")
    return get_local_kernel(Path(__file__).resolve().parents[1])


def make_inputs(dtype=torch.float64, channels=4, kernel_size=3):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    points = kernel_size**2
    return normal(2, 4, 5, 2, channels), normal(2, 4, 5, 2, points, 2), normal(2, 4, 5, 2, points)


def one_sample_at_a_time(value, offset, weight, kernel_size, padding):
    """The definition, number by number."""
    batch, height, width, groups, channels = value.shape
    out = value.new_zeros(batch, height, width, groups, channels)
    for n, row, column, g, k in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
        x = column - padding + k // kernel_size + offset[n, row, column, g, k, 0].item()
        y = row - padding + k % kernel_size + offset[n, row, column, g, k, 1].item()
        for pixel_x in (int(x // 1), int(x // 1) + 1):
            for pixel_y in (int(y // 1), int(y // 1) + 1):
                if 0 <= pixel_x < width and 0 <= pixel_y < height:
                    share = (1 - abs(x - pixel_x)) * (1 - abs(y - pixel_y)) * weight[n, row, column, g, k]
                    out[n, row, column, g] += share * value[n, pixel_y, pixel_x, g]
    return out.flatten(-2)


@pytest.mark.parametrize("path", ["avx512", "avx2", "portable"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("channels", "kernel_size"), [(16, 3), (32, 3), (5, 3), (20, 5)])
def test_forward(kernel, monkeypatch, path, dtype, channels, kernel_size):
    monkeypatch.setenv("DEFORMABLE_CONV_CPU_PATH", path)
    inputs = make_inputs(dtype, channels, kernel_size)
    try:
        out = kernel.deformable_aggregate(*inputs, kernel_size=kernel_size, padding=kernel_size // 2)
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    expected = one_sample_at_a_time(*(t.double() for t in inputs), kernel_size, kernel_size // 2)
    torch.testing.assert_close(out.double(), expected, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps * 50)


@pytest.mark.parametrize("softmax", [False, True])
def test_gradients(kernel, softmax):
    inputs = [tensor[:1, :3, :3].requires_grad_() for tensor in make_inputs(channels=2)]
    options = {"kernel_size": 3, "padding": 1, "softmax": softmax}
    assert torch.autograd.gradcheck(lambda *args: kernel.deformable_aggregate(*args, **options), inputs)


def test_opcheck(kernel):
    ops = sys.modules[f"{kernel.__name__}._ops"].ops
    inputs = [tensor.requires_grad_() for tensor in make_inputs(torch.float32)]
    options = ([3, 3], [1, 1], [1, 1], [1, 1], 1.0, False, True)
    torch.library.opcheck(ops.deformable_aggregate_forward.default, (*inputs, *options))


def test_compile(kernel):
    inputs = make_inputs(torch.float32)
    compiled = torch.compile(kernel.deformable_aggregate, fullgraph=True)
    out = compiled(*inputs, kernel_size=3, padding=1)
    torch.testing.assert_close(out, kernel.deformable_aggregate(*inputs, kernel_size=3, padding=1))
