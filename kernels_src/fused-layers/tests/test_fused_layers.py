"""Tests of the kernel on its own; see ../../conftest.py for what they run on."""

import pytest
import torch
from torch.nn import functional as F

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
PATHS = ["avx512_bf16", "avx512", "avx2", "portable"]


@pytest.fixture(scope="module", params=["cpu"])
def device(request):
    return request.param


def make_inputs(dtype, channels):
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 5, 6, channels), (channels, 1, 3, 3), *(((channels,),) * 3)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.mark.parametrize("path", PATHS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [16, 64, 37])
def test_all_functions(kernel, path, dtype, channels):
    x, taps, scale, weight, bias = make_inputs(dtype, channels)
    wide_x, wide_taps, wide_scale, wide_weight, wide_bias = (t.double() for t in (x, taps, scale, weight, bias))

    def norm(rows):
        return F.layer_norm(rows, (channels,), wide_weight, wide_bias, 1e-6)

    total, normalized = kernel.add_layer_norm(x, x, scale, weight, bias, 1e-6)
    features = F.conv2d(wide_x.permute(0, 3, 1, 2), wide_taps, wide_scale, padding=1, groups=channels)
    square = wide_x[0, 0, :1].mT @ wide_x[0, 0, :1] / channels  # (channels, channels)
    matrix = square.to(dtype)
    hidden = F.gelu(F.linear(wide_x, matrix.double(), wide_bias)).to(dtype).double()
    for actual, expected in (
        (kernel.linear(x, matrix, bias, x, scale), wide_x + wide_scale * F.linear(wide_x, matrix.double(), wide_bias)),
        (kernel.feed_forward(x, matrix, bias, matrix, None), F.linear(hidden, matrix.double())),
        (kernel.layer_norm(x, weight, bias, 1e-6), norm(wide_x)),
        (total, wide_x + wide_x * wide_scale),
        (normalized, norm(total.double())),
        (kernel.gelu(x), F.gelu(wide_x)),
        (kernel.gelu_backward(x, x), torch.ops.aten.gelu_backward(wide_x, wide_x)),
        (
            kernel.pointwise_conv(x, taps.flatten(1)[:, :1].expand(-1, channels), bias, activation="relu", residual=x),
            (wide_x.sum(-1, keepdim=True) * wide_taps.flatten(1)[:, 0] + wide_bias).relu() + wide_x,
        ),
        (kernel.depthwise_norm_gelu(x, taps, scale, weight, bias, 1e-6), F.gelu(norm(features.permute(0, 2, 3, 1)))),
    ):
        assert actual.dtype == dtype
        tolerance = max(torch.finfo(dtype).eps, 1e-12 if dtype == torch.float64 else 5e-6)
        torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


def test_compile(kernel):
    x, _, scale, weight, bias = make_inputs(torch.float32, 16)
    compiled = torch.compile(kernel.add_layer_norm, fullgraph=True)
    torch.testing.assert_close(
        compiled(x, x, scale, weight, bias, 1e-6), kernel.add_layer_norm(x, x, scale, weight, bias, 1e-6)
    )


def test_opcheck(operators):
    x, taps, scale, weight, bias = make_inputs(torch.float32, 16)
    tests = ("test_schema", "test_faketensor")
    for operator, arguments in (
        (operators.layer_norm, (x, weight, bias, 1e-6)),
        (operators.add_layer_norm, (x, x, None, weight, bias, 1e-6)),
        (operators.linear, (x, x[0, 0], None, None, None)),
        (operators.feed_forward, (x, x[0, 0], None, x[0, 0].mT.contiguous(), bias, x, scale)),
        (operators.gelu, (x,)),
        (operators.gelu_backward, (x, x)),
        (operators.pointwise_conv, (x, weight[None], None, None, None, scale, bias, True, 2)),
        (operators.batch_norm_factors, (weight, bias, scale, scale.abs(), 1e-6)),
        (operators.merge_kernels, (taps, scale, None, None)),
        (operators.depthwise_norm_gelu, (x, taps, scale, weight, bias, 1e-6)),
    ):
        torch.library.opcheck(operator.default, arguments, test_utils=tests)
