"""Layers of InternImage and FlashInternImage by kernels alone: what they compute, and when the modules run instead."""

import pytest
import torch
from kernels import get_local_kernel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.activations import ACT2FN

from hf_models import fused_blocks, hub_kernels, layers
from hf_models.configuration_flash_internimage import FlashInternImageConfig
from hf_models.configuration_internimage import InternImageConfig
from hf_models.modeling_flash_internimage import FlashInternImageLayer
from hf_models.modeling_internimage import InternImageLayer

from ..harness.kernel_builder import cpu_variant

SIZES = {"hidden_sizes": [32, 64], "depths": [1, 1], "groups": [2, 4], "drop_path_rate": 0.1}
FAMILIES = {
    "internimage": lambda **options: InternImageLayer(InternImageConfig(**SIZES | options), 0, 0.1),
    "flash_internimage": lambda **options: FlashInternImageLayer(FlashInternImageConfig(**SIZES | options), 0, 0.1),
}
X = torch.randn(2, 9, 7, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def calls(monkeypatch):
    """The names of the functions of the fused kernel that ran, on a processor that it is made for."""
    kernel, found = get_local_kernel(cpu_variant("fused-layers")), []
    if kernel.cpu_path() in ("avx2", "portable"):
        pytest.skip("oneDNN is faster on this processor")

    class Counted:
        def __getattr__(self, name):
            found.append(name)
            return getattr(kernel, name)

    choose = hub_kernels._choose
    decision = hub_kernels.KernelStatus("fused-layers", "cpu", "local", None, None, (), "the tests' build", ())
    monkeypatch.setattr(
        hub_kernels,
        "_choose",
        lambda name, device: (Counted(), decision) if name == "fused-layers" else choose(name, device),
    )
    monkeypatch.setattr(hub_kernels, "_modules", {})
    return found


@pytest.fixture(params=FAMILIES)
def layer(request):
    return make(request.param)


def make(family, **options):
    torch.manual_seed(0)
    layer = FAMILIES[family](**options).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.2)
    return layer


def plain(layer, x, monkeypatch):
    """What the modules compute."""
    with monkeypatch.context() as patch:
        for module in (fused_blocks, layers):
            patch.setattr(module, "product_kernel", lambda *_: None)
        return layer(x)


@pytest.mark.parametrize("options", [{}, {"layer_scale_init_value": None}, {"depthwise_kernel_size": 5}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_layer_is_what_its_modules_are(calls, monkeypatch, dtype, options):
    for family in FAMILIES:
        layer, x = make(family, **options).to(dtype), X.to(dtype)
        expected = plain(layer.double(), x.double(), monkeypatch)
        calls.clear()
        out = layer.to(dtype)(x)
        if "feed_forward" not in calls:  # a processor without the instructions for this type
            pytest.skip(f"oneDNN is faster in {dtype}")
        tolerance = 1e-5 if dtype == torch.float32 else 3e-2
        assert (out - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_rest_of_the_batch_changes_nothing(calls, layer):
    with torch.no_grad():
        assert torch.equal(layer(X)[:1], layer(X[:1]))
    assert "feed_forward" in calls


def with_a_hook(layer):
    layer.mlp.fc1.register_forward_hook(lambda *_: None)


def with_another_class(layer):
    layer.dcn.output_proj.__class__ = type("Adapted", (nn.Linear,), {})


def with_another_forward(layer):
    layer.dcn.forward = layer.dcn.forward


def with_another_norm(layer):
    layer.norm2 = nn.Identity()


def with_a_norm_without_bias(layer):
    layer.norm1 = nn.LayerNorm(32, bias=False)


def with_another_activation(layer):
    layer.mlp.activation = ACT2FN["relu"]


def with_a_weight_of_another_kind(layer):
    layer.mlp.fc2.weight = nn.Parameter(
        layer.mlp.fc2.weight.detach().as_subclass(type("Quantised", (torch.Tensor,), {}))
    )


def in_training(layer):
    layer.train()


CHANGES = (
    with_a_hook,
    with_another_class,
    with_another_forward,
    with_another_norm,
    with_a_norm_without_bias,
    with_another_activation,
    with_a_weight_of_another_kind,
    in_training,
)


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_the_modules_run_where_they_are_changed(calls, layer, change):
    change(layer)
    assert layer(X).shape == X.shape and "feed_forward" not in calls


@pytest.mark.parametrize("name", ["dcn", "mlp", "norm1", "drop_path", "layer_scale1", "mlp.fc2"])
@torch.no_grad()
def test_a_hook_sees_its_module(calls, layer, name):
    seen = []
    layer.get_submodule(name).register_forward_hook(lambda *_: seen.append(name))
    layer(X)
    assert seen and "feed_forward" not in calls


def test_the_modules_run_with_gradients_and_in_autocast(calls, layer):
    layer(X).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer(X)
    assert "feed_forward" not in calls


@torch.no_grad()
def test_the_modules_run_where_more_than_numbers_is_wanted(calls, layer, monkeypatch):
    expected = plain(layer, X, monkeypatch)
    torch.testing.assert_close(torch.func.vmap(layer)(X[:, None])[:, 0], expected)
    torch.testing.assert_close(torch.export.export(layer, (X,)).module()(X), expected)
    with FlopCounterMode(display=False) as counter:
        layer(X)
    assert counter.get_total_flops() > 0 and "feed_forward" not in calls


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_layers_that_normalise_their_outputs_run_as_modules(calls, family):
    layer = make(family, post_norm=True)
    assert layer(X).shape == X.shape and "feed_forward" not in calls


def test_compiled_layers_call_the_kernel_too(layer, monkeypatch):
    kernel = get_local_kernel(cpu_variant("fused-layers"))
    if kernel.cpu_path() in ("avx2", "portable"):
        pytest.skip("oneDNN is faster on this processor")
    choose = hub_kernels._choose
    decision = hub_kernels.KernelStatus("fused-layers", "cpu", "local", None, None, (), "the tests' build", ())
    monkeypatch.setattr(
        hub_kernels,
        "_choose",
        lambda name, device: (kernel, decision) if name == "fused-layers" else choose(name, device),
    )
    monkeypatch.setattr(hub_kernels, "_modules", {name: {} for name in hub_kernels.KERNELS})
    called = set()

    def backend(module, _):
        called.update(str(node.target).split(".")[-1] for node in module.graph.nodes)
        return module.forward

    torch._dynamo.reset()
    with torch.no_grad():
        out = torch.compile(layer, backend=backend, fullgraph=True)(X)
        assert {"layer_norm", "linear", "feed_forward"} <= called
        assert torch.equal(out, layer(X))
