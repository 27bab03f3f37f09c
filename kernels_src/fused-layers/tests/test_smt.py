"""Tests of the functions for SMT on their own; see ../../conftest.py for what they run on."""

import pytest
import torch
from torch.nn import functional as F

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
PATHS = ["avx512_bf16", "avx512", "avx2", "portable"]


@pytest.fixture(scope="module", params=["cpu"])
def device(request):
    return request.param


def numbers(dtype, *shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def depthwise(x, kernel, bias):
    out = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=kernel.shape[-1] // 2, groups=x.shape[-1])
    return out.permute(0, 2, 3, 1)


def assert_near(actual, expected, dtype):
    assert actual.dtype == dtype
    tolerance = 2 * max(torch.finfo(dtype).eps, 1e-12 if dtype == torch.float64 else 5e-6)
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


def mixing_inputs(dtype, channels):
    kernels = numbers(dtype, *((channels, 1, k, k) for k in (3, 5, 7, 9)))
    x, expand, *vectors = numbers(dtype, (2, 15, 9, 4 * channels), (8 * channels, 4, 1, 1), *[(8 * channels,)] * 5)
    vectors[2] = vectors[2].abs() + 1
    return x, [kernel / 9 for kernel in kernels], numbers(dtype, *[(channels,)] * 4), expand, *vectors, 1e-5


@pytest.mark.parametrize("path", PATHS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [16, 37])
def test_mix_scales(kernel, path, dtype, channels):
    inputs = mixing_inputs(dtype, channels)
    x, kernels, biases, expand, expand_bias, mean, variance, weight, bias = (
        [t.double() for t in value] if isinstance(value, list) else value.double() for value in inputs[:-1]
    )
    heads = [depthwise(*of_head) for of_head in zip(x.chunk(4, -1), kernels, biases, strict=True)]
    mixed = torch.stack(heads, -1).flatten(-2).permute(0, 3, 1, 2)  # (N, H, W, D, 4) -> (N, 4 D, H, W)
    expanded = F.conv2d(mixed, expand, expand_bias, groups=channels)
    expected = F.gelu(F.batch_norm(expanded, mean, variance, weight, bias, eps=1e-5)).permute(0, 2, 3, 1)
    assert_near(kernel.mix_scales(*inputs), expected, dtype)


@pytest.mark.parametrize("path", PATHS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [48, 21])
def test_attend_and_add_depthwise_gelu(kernel, path, dtype, channels):
    query, key_value, taps, bias = numbers(
        dtype, (2, 5, 6, channels), (2, 5, 6, 2 * channels), (channels, 1, 3, 3), (channels,)
    )
    wide_query, wide_key_value, wide_taps, wide_bias = (t.double() for t in (query, key_value, taps, bias))
    assert_near(
        kernel.add_depthwise_gelu(query, taps, bias),
        F.gelu(wide_query + depthwise(wide_query, wide_taps, wide_bias)),
        dtype,
    )
    key, value = wide_key_value.chunk(2, -1)
    # (N, H, W, C) -> (N, H W, heads, C / heads) -> (N, heads, H W, C / heads)
    split = [t.flatten(1, 2).unflatten(-1, (3, -1)).transpose(1, 2) for t in (wide_query, key, value)]
    attended = F.scaled_dot_product_attention(*split).transpose(1, 2).reshape(query.shape)
    expected = attended + depthwise(value, wide_taps, wide_bias)
    assert_near(kernel.attend(query, key_value, 3, taps, bias), expected, dtype)


def test_opcheck(operators):
    query, key_value, taps, bias = numbers(torch.float32, (1, 3, 4, 8), (1, 3, 4, 16), (8, 1, 3, 3), (8,))
    for operator, arguments in (
        (operators.mix_scales, mixing_inputs(torch.float32, 4)),
        (operators.add_depthwise_gelu, (query, taps, bias)),
        (operators.attend, (query, key_value, 2, taps, bias)),
    ):
        torch.library.opcheck(operator.default, arguments, test_utils=("test_schema", "test_faketensor"))
