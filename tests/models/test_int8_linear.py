"""Linear layers in 8 bits: what they compute, and when they compute it in another way."""

import copy
import io

import pytest
import torch
from kernels import get_local_kernel
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from hf_models import int8_linear
from hf_models.int8_linear import Int8Linear, feed_forward, has_fast_products

from ..harness.kernel_builder import cpu_variant

needs_vnni = pytest.mark.skipif(not has_fast_products(), reason="this processor multiplies no 8-bit numbers")
SPAN = (-3.0, 3.5)


@pytest.fixture(params=["kernel", "onednn"], autouse=True)
def way(request, monkeypatch):
    """The products by the compiled kernel, and where it is not built."""
    kernel = get_local_kernel(cpu_variant(int8_linear.KERNEL))
    monkeypatch.setattr(
        int8_linear, "get_function", lambda _, name, *__: getattr(kernel, name) if request.param == "kernel" else None
    )


def linear_layer(in_features: int = 48, out_features: int = 40, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(in_features, out_features, bias=bias)


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).clamp(-2.9, 3.4).to(dtype)


def without_8_bit_products(monkeypatch) -> None:
    monkeypatch.setattr(int8_linear, "has_fast_products", lambda: False)


def emulated(layer: Int8Linear, hidden_states: torch.Tensor) -> torch.Tensor:
    """By the definition, in float64."""
    span = [bound.item() for bound in torch.aminmax(hidden_states)]
    scale, zero = (layer.input_scale, layer.input_zero_point) if layer.calibrated else int8_linear._levels(*span)
    scale, zero = float(scale), int(zero)
    levels = (hidden_states.double() / scale + zero).round().clamp(0, 255)
    weight = layer.weight.double() * layer.weight_scale.double()[:, None]
    return F.linear((levels - zero) * scale, weight, None if layer.bias is None else layer.bias.double())


@needs_vnni
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("span", [SPAN, None], ids=["calibrated", "dynamic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(48,), (3, 48), (2, 7, 5, 48)])
def test_products_are_exact(shape, dtype, span, bias):
    layer = Int8Linear.from_linear(linear_layer(bias=bias), span).to(dtype)
    hidden_states = inputs(*shape, dtype=dtype)
    with torch.no_grad():
        out, expected = layer(hidden_states), emulated(layer, hidden_states)
    assert out.dtype == dtype
    # a number halfway between two levels may fall to either, by the rounding of its quotient
    allowed = (4e-3 if dtype == torch.bfloat16 else 1e-6) * expected.abs().max() + 0.03 * layer.weight_scale.max()
    assert (out.double() - expected).abs().max() <= allowed + 2 * 127 * layer.weight_scale.max() * 0.03


@needs_vnni
def test_inputs_beyond_the_span_become_its_ends():
    layer = Int8Linear.from_linear(linear_layer(), SPAN)
    far = 100 * torch.ones(1, 48)
    with torch.no_grad():
        torch.testing.assert_close(layer(far).double(), emulated(layer, far), rtol=1e-4, atol=1e-4)


def test_weights_are_rounded_to_the_nearest():
    layer = linear_layer()
    with torch.no_grad():
        layer.weight[3] = 0
    rounded = Int8Linear.from_linear(layer)
    scale = rounded.weight_scale[:, None]
    assert torch.equal(scale, scale.bfloat16().float())
    assert ((rounded.weight.float() * scale - layer.weight).abs() <= scale / 2 + 1e-9).all()
    assert rounded.weight.abs().amax(dim=1).sort().values[1:].min() >= 126  # all levels are used
    wide = rounded.dequantized(torch.float32)
    assert type(wide) is nn.Linear and torch.equal(wide.weight, rounded.weight * scale)


@pytest.mark.parametrize("span", [SPAN, None], ids=["calibrated", "dynamic"])
def test_without_8_bit_products_it_is_the_widened_layer(span, monkeypatch):
    layer = Int8Linear.from_linear(linear_layer(), span)
    expected = layer.dequantized(torch.float32)(inputs(4, 48))
    without_8_bit_products(monkeypatch)
    with torch.no_grad():
        assert torch.equal(layer(inputs(4, 48)), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_types_take_the_widened_layer(dtype):
    layer = Int8Linear.from_linear(linear_layer(), SPAN)
    with torch.no_grad():
        out = layer(inputs(4, 48, dtype=dtype))
        torch.testing.assert_close(out, layer.dequantized(dtype)(inputs(4, 48, dtype=dtype)))


def test_gradients_of_the_input():
    layer = Int8Linear.from_linear(linear_layer(), SPAN)
    hidden_states = inputs(4, 48).requires_grad_()
    layer(hidden_states).sum().backward()
    torch.testing.assert_close(hidden_states.grad, layer.dequantized(torch.float32).weight.sum(0).expand(4, -1))


def test_autocast_compilation_and_export():
    layer = Int8Linear.from_linear(linear_layer(), SPAN)
    wide = layer.dequantized(torch.float32)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(inputs(4, 48)).dtype == torch.bfloat16
        torch._dynamo.reset()
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(inputs(4, 48)), wide(inputs(4, 48)))
        exported = torch.export.export(layer, (inputs(4, 48),)).module()
        torch.testing.assert_close(exported(inputs(4, 48)), wide(inputs(4, 48)))
        torch.testing.assert_close(torch.func.vmap(layer)(inputs(4, 48)), wide(inputs(4, 48)))


@pytest.mark.parametrize("span", [SPAN, None], ids=["calibrated", "dynamic"])
def test_empty_and_infinite_inputs(span):
    layer = Int8Linear.from_linear(linear_layer(), span)
    with torch.no_grad():
        assert layer(torch.zeros(0, 48)).shape == (0, 40)
        if span is None:
            broken = inputs(4, 48)
            broken[1, 2] = float("nan")
            assert layer(broken)[1].isnan().all() and layer(broken)[0].isfinite().all()


@needs_vnni
def test_new_weights_are_noticed():
    layer, other = (Int8Linear.from_linear(linear_layer(bias=bias), SPAN) for bias in (True, True))
    other.weight = -other.weight
    with torch.no_grad():
        first, expected = layer(inputs(4, 48)), other(inputs(4, 48))
        assert not torch.equal(first, expected)
        assert torch.equal(torch.func.functional_call(layer, dict(other.state_dict()), inputs(4, 48)), expected)
        assert torch.equal(layer(inputs(4, 48)), first)
        layer.load_state_dict(other.state_dict())
        assert torch.equal(layer(inputs(4, 48)), expected)


def test_copies_pickles_and_casts():
    layer = Int8Linear.from_linear(linear_layer(), SPAN)
    with torch.no_grad():
        expected = layer(inputs(4, 48))
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        for other in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
            assert torch.equal(other(inputs(4, 48)), expected)
        back = copy.deepcopy(layer).bfloat16().float()
        assert torch.equal(back.weight_scale, layer.weight_scale)
        assert torch.equal(back.input_scale, layer.input_scale)
    with torch.inference_mode():
        assert torch.equal(layer(inputs(4, 48)), expected)


def pair(span: tuple[float, float] | None = SPAN) -> tuple[Int8Linear, Int8Linear]:
    return (
        Int8Linear.from_linear(linear_layer(48, 96), span),
        Int8Linear.from_linear(linear_layer(96, 48, bias=False), span and (-0.2, 3.5)),
    )


@needs_vnni
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_feed_forward_stays_in_8_bits(dtype):
    first, last = (layer.to(dtype) for layer in pair())
    hidden_states = inputs(2, 9, 48, dtype=dtype)
    with torch.no_grad():
        out = feed_forward(first, ACT2FN["gelu"], last, hidden_states)
        expected = last(ACT2FN["gelu"](first(hidden_states)))
    assert out.dtype == dtype
    assert (out - expected).abs().max() <= 2e-2 * expected.abs().max()


@pytest.mark.parametrize("watched", [0, 1, 2])
def test_hooks_inside_a_feed_forward_see_every_call(watched):
    first, last = pair()
    modules, seen = (first, copy.deepcopy(ACT2FN["gelu"]), last), []
    modules[watched].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        feed_forward(*modules, inputs(4, 48))
    assert seen == [torch.float32]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize("kind", ["calibrated", "dynamic", "float"])
def test_feed_forward_is_what_its_layers_compute(kind, activation):
    first, last = pair(SPAN if kind == "calibrated" else None)
    if kind == "float":
        first, last = (layer.dequantized(torch.float32) for layer in (first, last))
    with torch.no_grad():
        out = feed_forward(first, ACT2FN[activation], last, inputs(4, 48))
        expected = last(ACT2FN[activation](first(inputs(4, 48))))
    assert (out - expected).abs().max() <= 2e-2 * expected.abs().max()
