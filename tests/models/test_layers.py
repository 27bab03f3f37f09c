"""Layers that oneDNN computes where there are no gradients."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hf_models.layers import Linear, PointwiseConv2d


class Operators(TorchDispatchMode):
    """Records which operators ran."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket._qualified_op_name)
        return function(*args, **(kwargs or {}))

    def __contains__(self, name):
        return name in self.names


ONEDNN = "mkldnn::_linear_pointwise"
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


def run(layer, images):
    with torch.no_grad(), Operators() as operators:
        return layer(images), ONEDNN in operators


def images(*shape, dtype=torch.float32, memory_format=torch.channels_last):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator).to(dtype).to(memory_format=memory_format)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("shape", [(2, 24, 5, 7), (1, 24, 1, 1), (3, 24, 1, 9)])
def test_pointwise_convolution_is_that_of_pytorch(shape, dtype, tolerance, bias):
    layer = PointwiseConv2d(24, 40, bias=bias).to(dtype)
    conv = nn.Conv2d(24, 40, 1, bias=bias).to(dtype)
    conv.load_state_dict(layer.state_dict())
    out, by_onednn = run(layer, images(*shape, dtype=dtype))
    expected = conv(images(*shape, dtype=dtype))
    assert by_onednn
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected.detach(), rtol=tolerance, atol=tolerance)


def test_gradients_are_those_of_pytorch():
    layer = PointwiseConv2d(24, 40)
    conv = nn.Conv2d(24, 40, 1)
    conv.load_state_dict(layer.state_dict())
    for module in (layer, conv):
        module(images(2, 24, 5, 7)).square().sum().backward()
    assert torch.equal(layer.weight.grad, conv.weight.grad)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.contiguous(),  # (N, C, H, W) in memory: PyTorch's convolution, and its layout
        lambda x: x.double(),
        lambda x: x[:0],
    ],
)
def test_what_onednn_does_not_compute(change):
    x = change(images(2, 24, 5, 7))
    layer = PointwiseConv2d(24, 40).to(x.dtype)
    out, by_onednn = run(layer, x)
    assert not by_onednn
    torch.testing.assert_close(out, layer(x).detach())
    assert out.stride() == layer(x).stride()


def test_autocast_decides_the_dtype():
    layer = PointwiseConv2d(24, 40)
    with torch.autocast("cpu", torch.bfloat16):
        out, by_onednn = run(layer, images(2, 24, 5, 7))
    assert out.dtype == torch.bfloat16
    assert not by_onednn


def test_linear_is_that_of_pytorch():
    layer = Linear(24, 40)
    tokens = images(2, 24, 5, 7).permute(0, 2, 3, 1)
    out, by_onednn = run(layer, tokens)
    assert by_onednn
    torch.testing.assert_close(out, layer(tokens).detach(), rtol=1e-5, atol=1e-5)
