"""Tests of the kernel on its own; see ../../conftest.py for what they run on."""

import pytest
import torch
from torch.nn import functional as F

PATHS = ["avx512_bf16", "avx512_vnni", "portable"]


@pytest.fixture(scope="module", params=["cpu"])
def device(request):
    return request.param


def make_inputs(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-100, 100, (2, 5, 6, 24), generator=generator) / 32
    first, second = (
        torch.randint(-127, 128, size, generator=generator, dtype=torch.int8) for size in ((40, 24), (37, 40))
    )
    return x.to(dtype), first, second, torch.rand(40, generator=generator) / 500, torch.randn(40, generator=generator)


@pytest.mark.parametrize("path", PATHS, indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_functions(kernel, path, dtype):
    x, first, second, scale, bias = make_inputs(dtype)
    hidden = F.linear(x.double(), first.double() * scale.double()[:, None], bias.double())
    levels = (F.gelu(hidden) * 64 + 10).round().clamp(0, 255)
    expected = F.linear((levels - 10) / 64, second.double() * scale.double()[:37, None])
    layer = 1 / 32, 128, kernel.pack(first), scale, bias
    for actual, exact, tolerance in (
        (kernel.linear(x, *layer), hidden, 1e-5),
        (kernel.feed_forward(x, *layer, 1 / 64, 10, kernel.pack(second), scale[:37], None), expected, 2e-2),
    ):
        assert actual.dtype == dtype
        tolerance = max(torch.finfo(dtype).eps, tolerance)
        torch.testing.assert_close(actual.double(), exact, rtol=tolerance, atol=tolerance)


def test_compile(kernel):
    x, first, _, scale, bias = make_inputs(torch.float32)
    layer = 1 / 32, 128, kernel.pack(first), scale, bias
    compiled = torch.compile(kernel.linear, fullgraph=True)
    torch.testing.assert_close(compiled(x, *layer), kernel.linear(x, *layer))


def test_opcheck(operators):
    x, first, second, scale, bias = make_inputs(torch.float32)
    tests = ("test_schema", "test_faketensor")
    layer = 1 / 32, 128, operators.pack(first), scale, bias
    for operator, arguments in (
        (operators.pack, (first,)),
        (operators.linear, (x, *layer)),
        (operators.feed_forward, (x, *layer, 1 / 64, 10, operators.pack(second), scale[:37], None)),
    ):
        torch.library.opcheck(operator.default, arguments, test_utils=tests)
