"""Tests of the kernel on its own; see ../../conftest.py for what they run on."""

import pytest
import torch
from torch.nn import functional as F

PATHS = ["avx512", "avx2", "portable"]


@pytest.fixture(scope="module", params=["cpu"])
def device(request):
    return request.param


def make_inputs(in_channels, out_channels):
    generator = torch.Generator().manual_seed(0)
    shapes = (2, in_channels, 7, 10), (out_channels, in_channels, 3, 3), (out_channels,)
    return [torch.randn(*shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("path", PATHS, indirect=True)
@pytest.mark.parametrize("channels", [(64, 64), (3, 37), (600, 16)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("relu", [False, True])
def test_conv3x3(kernel, path, channels, memory_format, relu):
    x, weight, bias = make_inputs(*channels)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    out = kernel.conv3x3(x.to(memory_format=memory_format), weight, bias, relu)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.double(), expected.relu() if relu else expected, rtol=0, atol=2e-4)


def test_compile(kernel):
    arguments = *make_inputs(16, 8), True
    compiled = torch.compile(kernel.conv3x3, fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), kernel.conv3x3(*arguments))


def test_opcheck(operators):
    x, weight, bias = make_inputs(16, 8)
    for summand in (bias, None):
        arguments = x.permute(0, 2, 3, 1), weight, summand, False
        torch.library.opcheck(operators.conv3x3.default, arguments, test_utils=("test_schema", "test_faketensor"))
