"""Layers of PyTorch that are computed faster where nobody would notice."""

import copy
import importlib.util
import re
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune
from torch.overrides import TorchFunctionMode
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.flop_counter import FlopCounterMode

from hf_models import layers
from hf_models.layers import linear, pointwise_conv, xavier_linear, zero_linear

# what computes a linear layer faster than PyTorch: oneDNN, or the kernel fused-layers
FAST = re.compile(r"mkldnn::_linear_pointwise|_fused_layers_cpu_\w+::linear")
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
LAYERS = {
    linear: lambda **options: nn.Linear(24, 40, **options),
    pointwise_conv: lambda **options: nn.Conv2d(24, 40, 1, **options),
}


@pytest.fixture(autouse=True)
def without_kernel(monkeypatch):
    """The products of fused-layers have tests of their own."""
    monkeypatch.setattr(layers, "product_kernel", lambda hidden_states: None)
    monkeypatch.setattr(layers, "_multiplies_fast", lambda dtype: False)


@pytest.fixture(params=LAYERS, ids=lambda function: function.__name__)
def computed(request):
    """The function that computes a layer."""
    return request.param


def run(computed, layer, inputs):
    """What is computed without gradients, and whether a faster product did it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.no_grad():
        out = computed(layer, inputs)
    return out, any(FAST.fullmatch(event.name) for event in profile.events())


def images(*shape, dtype=torch.float32, memory_format=torch.channels_last):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator).to(dtype).to(memory_format=memory_format)


def inputs_of(computed):
    x = images(2, 24, 5, 7)
    return x.permute(0, 2, 3, 1) if computed is linear else x


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("shape", [(2, 24, 5, 7), (1, 24, 1, 1), (3, 24, 1, 9)])
def test_pointwise_convolution_is_that_of_pytorch(shape, dtype, tolerance, bias):
    layer = nn.Conv2d(24, 40, 1, bias=bias).to(dtype)
    out, is_fast = run(pointwise_conv, layer, images(*shape, dtype=dtype))
    expected = layer(images(*shape, dtype=dtype))
    assert is_fast
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_that_of_pytorch(bias):
    layer = nn.Linear(24, 40, bias=bias)
    out, is_fast = run(linear, layer, inputs_of(linear))
    assert is_fast
    torch.testing.assert_close(out, layer(inputs_of(linear)).detach(), rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_pytorch(computed):
    layer = LAYERS[computed]()
    other = copy.deepcopy(layer)
    computed(layer, inputs_of(computed)).square().sum().backward()
    other(inputs_of(computed)).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, other.weight.grad)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.contiguous(),  # (N, C, H, W) in memory: PyTorch's convolution, and its layout
        lambda x: x.double(),
        lambda x: x[:0],
    ],
)
def test_what_pytorch_computes(change):
    x = change(images(2, 24, 5, 7))
    layer = nn.Conv2d(24, 40, 1).to(x.dtype)
    out, is_fast = run(pointwise_conv, layer, x)
    assert not is_fast
    torch.testing.assert_close(out, layer(x).detach())
    assert out.stride() == layer(x).stride()


def test_autocast_decides_the_dtype(computed):
    with torch.autocast("cpu", torch.bfloat16):
        out, is_fast = run(computed, LAYERS[computed](), inputs_of(computed))
    assert out.dtype == torch.bfloat16
    assert not is_fast


def compile_and_run(computed, layer, inputs):
    """What a compiled function computes, and whether oneDNN is to do it by the operator of this package."""
    graphs = []

    def backend(module, _):
        graphs.append(module.graph)
        return module.forward

    torch._dynamo.reset()
    out = torch.compile(lambda x: computed(layer, x), backend=backend, fullgraph=True)(inputs)
    (graph,) = graphs
    return out, "hf_models.linear" in {str(node.target) for node in graph.nodes}


def test_compiled_without_gradients_onednn_computes(computed):
    layer = LAYERS[computed]()
    with torch.no_grad():
        out, is_fast = compile_and_run(computed, layer, inputs_of(computed))
        assert is_fast
        assert torch.equal(out, computed(layer, inputs_of(computed)))
        assert out.stride() == computed(layer, inputs_of(computed)).stride()


@pytest.mark.parametrize(("dtype", "precision"), [(torch.bfloat16, "none"), (torch.float32, "tf32")])
def test_compiled_with_frozen_weights_the_compiler_chooses(dtype, precision, computed):
    from torch._inductor import config

    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = precision
    try:
        with config.patch(freezing=True), torch.no_grad():
            _, is_fast = compile_and_run(computed, LAYERS[computed]().to(dtype), inputs_of(computed).to(dtype))
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    assert not is_fast


def test_compiled_with_gradients_pytorch_computes(computed):
    layer = LAYERS[computed]()
    out, is_fast = compile_and_run(computed, layer, inputs_of(computed))
    assert not is_fast
    out.square().sum().backward()
    assert layer.weight.grad is not None


def test_compiled_under_autocast_pytorch_computes(computed):
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        out, is_fast = compile_and_run(computed, LAYERS[computed](), inputs_of(computed))
    assert out.dtype == torch.bfloat16
    assert not is_fast


def test_compiled_weights_of_another_kind_are_those_of_pytorch(computed):
    layer = LAYERS[computed]()
    weight = layer.weight.detach()
    layer.weight = nn.Parameter(TwoTensor(weight, weight.clone()), requires_grad=False)
    with torch.no_grad():
        _, is_fast = compile_and_run(computed, layer, inputs_of(computed))
    assert not is_fast


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_is_declared_as_it_is(dtype, bias):
    layer = nn.Linear(24, 40, bias=bias).to(dtype)
    inputs = (inputs_of(linear).to(dtype), layer.weight.detach(), layer.bias.detach() if bias else None)
    torch.library.opcheck(torch.ops.hf_models.linear.default, inputs)


def test_a_copy_of_the_file_finds_the_operator_defined(monkeypatch):
    spec = importlib.util.spec_from_file_location("hf_models.copy_of_layers", layers.__file__)
    copy_of_layers = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, copy_of_layers)
    spec.loader.exec_module(copy_of_layers)
    monkeypatch.setattr(copy_of_layers, "_multiplies_fast", lambda dtype: False)
    with torch.no_grad():
        _, is_fast = compile_and_run(copy_of_layers.linear, nn.Linear(24, 40), inputs_of(linear))
    assert is_fast


class Plus(nn.Module):
    """A parametrisation."""

    def forward(self, weight):
        return weight + 1


class Adapter(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.weight, self.bias = layer, layer.weight, layer.bias

    def forward(self, x):
        return self.layer(x) + 1


class Scaled(torch.Tensor):
    """A subclass whose products are twice as large, as those of quantised weights are something else too."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function not in (F.linear, F.conv2d):
            return super().__torch_function__(function, types, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {})) * 2


def offload(layer):
    forward = layer.forward
    layer.forward = lambda x: forward(x) + 1


CHANGES = {
    "forward hook": lambda layer: layer.register_forward_hook(lambda module, inputs, out: out + 1),
    "forward pre-hook": lambda layer: layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,)),
    "forward of its own": offload,
    "adapter": Adapter,
    "parametrisation": lambda layer: parametrize.register_parametrization(layer, "weight", Plus()),
    "weight_norm": lambda layer: nn.utils.weight_norm(layer).weight_g.data.mul_(2),
    "spectral_norm": lambda layer: nn.utils.spectral_norm(layer),
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "subclass of tensors": lambda layer: setattr(layer, "weight", nn.Parameter(layer.weight.data.as_subclass(Scaled))),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_what_was_put_on_a_layer_takes_effect(computed, change):
    layer, inputs = LAYERS[computed]().eval(), inputs_of(computed)
    with torch.no_grad():
        before = layer(inputs)
    changed = CHANGES[change](layer)
    layer = changed if isinstance(changed, Adapter) else layer
    out, is_fast = run(computed, layer, inputs)
    assert not is_fast
    assert (out - before).abs().max() > 1e-3
    assert torch.equal(out, layer(inputs).detach())


def test_global_hooks_see_every_layer(computed):
    layer, seen = LAYERS[computed](), []
    hook = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        run(computed, layer, inputs_of(computed))
    finally:
        hook.remove()
    assert seen == [layer]


def test_functions_in_the_place_of_pytorchs_are_called(computed, monkeypatch):
    """As profilers that count FLOPs put them there."""
    name, calls = {linear: "linear", pointwise_conv: "conv2d"}[computed], []
    original = getattr(F, name)
    monkeypatch.setattr(F, name, lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    run(computed, LAYERS[computed](), inputs_of(computed))
    assert calls == [1]


def test_flops_are_counted(computed):
    """With gradients and without: two for each product of an input and a weight."""
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), FlopCounterMode(display=False) as counter:
            computed(LAYERS[computed](), inputs_of(computed))
        assert counter.get_total_flops() == 2 * 2 * 5 * 7 * 24 * 40


def test_modes_see_the_operators_of_pytorch(computed):
    class Recorder(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    seen = []
    with torch.no_grad(), Recorder():
        computed(LAYERS[computed](), inputs_of(computed))
    assert {linear: F.linear, pointwise_conv: F.conv2d}[computed] in seen


class Computed(nn.Module):
    def __init__(self, computed, layer):
        super().__init__()
        self.computed, self.layer = computed, layer

    def forward(self, x):
        return self.computed(self.layer, x)


def test_a_default_device_changes_nothing(computed):
    with torch.device("cpu"):
        _, is_fast = run(computed, LAYERS[computed](), inputs_of(computed))
    assert is_fast


def test_transformations_and_programs(computed):
    layer, inputs = LAYERS[computed](), inputs_of(computed)
    with torch.no_grad():
        expected = layer(inputs)
        _, tangent = torch.func.jvp(lambda x: computed(layer, x), (inputs,), (inputs,))
        torch.testing.assert_close(tangent, expected - computed(layer, 0 * inputs), rtol=1e-4, atol=1e-5)
        batch = torch.vmap(lambda x: computed(layer, x))(torch.stack((inputs, inputs)))
        torch.testing.assert_close(batch[1], expected)
        doubled = {f"layer.{name}": 2 * tensor for name, tensor in layer.named_parameters()}
        torch.testing.assert_close(
            torch.func.functional_call(Computed(computed, layer), doubled, inputs), 2 * expected, rtol=1e-4, atol=1e-5
        )
        traced = torch.jit.trace(Computed(computed, layer), inputs)
    assert "mkldnn" not in str(traced.inlined_graph)


def test_layers_that_start_differently():
    zero, xavier = zero_linear(8, 4), xavier_linear(400, 100)
    assert type(zero) is type(xavier) is nn.Linear
    assert not zero.weight.any() and not zero.bias.any() and not xavier.bias.any()
    assert xavier.weight.abs().max() <= (6 / 500) ** 0.5
    assert xavier.weight.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.02)
    assert copy.deepcopy(zero).initialize_weight is zero.initialize_weight
    assert layers.xavier_linear(4, 4, bias=False).bias is None


def test_the_operator_of_compiled_graphs_counts_what_linear_counts():
    weight, bias = torch.randn(40, 24), torch.randn(40)
    counts = []
    for product in (F.linear, torch.ops.hf_models.linear):
        with FlopCounterMode(display=False) as counter:
            product(torch.randn(2, 7, 24), weight, bias)
        counts.append(counter.get_total_flops())
    assert counts == [2 * 2 * 7 * 24 * 40] * 2
