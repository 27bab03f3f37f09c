"""Strided convolutions that are computed in another way where nobody would notice."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from hf_models import strided_conv
from hf_models.strided_conv import conv_norm_relu, downsample


@pytest.fixture
def stem():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return conv, norm


def images(*shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


def plain_stem(conv, norm, x):
    return F.relu(norm(conv(x)))


@pytest.fixture
def products(monkeypatch):
    """How often the convolution was computed as a product with patches."""
    found = []
    stack = torch.stack
    monkeypatch.setattr(strided_conv.torch, "stack", lambda *args, **kwargs: found.append(1) or stack(*args, **kwargs))
    return found


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("size", [(14, 14), (7, 5), (1, 1), (2, 9)])
def test_downsampling_by_patches(products, size, dtype, tolerance):
    conv, x = nn.Conv2d(6, 256, 3, stride=2, padding=1).to(dtype), images(1, 6, *size).to(dtype)
    out = downsample(conv, x)
    torch.testing.assert_close(out.double(), conv.double()(x.double()), rtol=tolerance, atol=tolerance)
    assert products and out.dtype == dtype and out.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 1}, {"padding": 0}, {"stride": 1}, {"groups": 2}, {"padding_mode": "reflect"}, {"dilation": 2}],
)
def test_other_convolutions_are_called(products, options):
    conv = nn.Conv2d(6, 256, **{"kernel_size": 3, "stride": 2, "padding": 1} | options)
    x = images(1, 6, 7, 7)
    assert torch.equal(downsample(conv, x), conv(x)) and not products


@torch.no_grad()
def test_large_maps_are_convolved(products):
    conv = nn.Conv2d(6, 256, 3, stride=2, padding=1)
    downsample(conv, images(1, 6, 17, 17))
    downsample(conv, images(0, 6, 4, 4))
    assert not products


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_the_norm_is_part_of_the_weights(stem, dtype, tolerance):
    conv, norm = (module.to(dtype) for module in stem)
    x = images(2, 3, 9, 10).to(dtype)
    out = conv_norm_relu(conv, norm, x)
    assert out.dtype == dtype
    expected = plain_stem(conv.double(), norm.double(), x.double())
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_what_is_no_number_stays_so(stem):
    x = images(1, 3, 9, 10)
    x[0, 0, 4, 4] = float("nan")
    assert torch.equal(conv_norm_relu(*stem, x).isnan(), plain_stem(*stem, x).isnan())


def with_gradients(conv, norm, x):
    return x.requires_grad_()


def with_hooks(conv, norm, x):
    conv.register_forward_hook(lambda module, inputs, out: out + 1)
    norm.register_forward_hook(lambda module, inputs, out: out + 1)


def in_training(conv, norm, x):
    norm.train()
    norm.momentum = 0.0  # so that two calls see the same


def of_another_class(conv, norm, x):
    conv.__class__ = type("OtherConv2d", (nn.Conv2d,), {"forward": lambda self, x: nn.Conv2d.forward(self, x) * 2})


@pytest.mark.parametrize("change", [with_gradients, with_hooks, in_training, of_another_class])
def test_the_modules_run_where_somebody_would_notice(stem, products, change):
    conv, norm = stem
    down, x = nn.Conv2d(3, 256, 3, stride=2, padding=1), images(1, 3, 7, 7)
    with torch.set_grad_enabled(change is with_gradients):
        change(conv, norm, x)
        if change is not in_training:
            change(down, nn.Identity(), x)
            assert torch.equal(downsample(down, x), down(x)) and not products
        assert torch.equal(conv_norm_relu(conv, norm, x), plain_stem(conv, norm, x))


@torch.no_grad()
def test_the_modules_run_in_autocast(stem, products):
    down, x = nn.Conv2d(3, 256, 3, stride=2, padding=1), images(1, 3, 7, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(downsample(down, x), down(x)) and not products
        assert torch.equal(conv_norm_relu(*stem, x), plain_stem(*stem, x))


@torch.no_grad()
def test_a_compiled_model_chooses_when_it_runs(products):
    conv = nn.Conv2d(6, 256, 3, stride=2, padding=1)
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x: downsample(conv, x), backend=graphs, fullgraph=True, dynamic=True)
    for size, by_patches in (((5, 7), 1), ((17, 18), 1), ((7, 9), 2)):
        x = images(1, 6, *size)
        torch.testing.assert_close(compiled(x), conv(x), rtol=1e-5, atol=1e-5)
        assert len(products) == by_patches
    assert graphs.frame_count == 1
