"""RepLKNet's blocks in passes of compiled kernels: when they run, and that what was put on a module takes effect."""

import copy

import pytest
import torch
from kernels import get_local_kernel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hf_models import hub_kernels
from hf_models.configuration_replknet import RepLKNetConfig
from hf_models.large_kernel_conv import ConvNorm
from hf_models.modeling_replknet import RepLKNetLayer

from ..harness.kernel_builder import cpu_variant

KERNELS = ("fused-layers", "large-kernel-conv")
FORMS = ["plain", "merged", "folded", "no small kernel"]
PASSES = ["pointwise_conv"] * 4
X = torch.randn(2, 16, 9, 11, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def modules():
    return {name: get_local_kernel(cpu_variant(name)) for name in KERNELS}


@pytest.fixture
def calls(modules, monkeypatch):
    """The products of the kernel that ran."""
    if not modules["fused-layers"].multiplies_fast(torch.bfloat16):
        pytest.skip("this processor's products are oneDNN's")
    found = []

    class Counted:
        def __init__(self, module):
            self.module = module

        def __getattr__(self, name):
            found.extend([name] * (name == "pointwise_conv"))
            return getattr(self.module, name)

    decision = hub_kernels.KernelStatus("", "cpu", "local", None, None, (), "the tests' build", ())
    monkeypatch.setattr(hub_kernels, "_choose", lambda kernel, device: (Counted(modules[kernel]), decision))
    monkeypatch.setattr(hub_kernels, "_modules", {name: {} for name in KERNELS})
    return found


def make_layer(form="plain"):
    """A layer of a trained model: norms that do something."""
    small = None if form == "no small kernel" else 5
    config = RepLKNetConfig(hidden_sizes=(16,), depths=(1,), kernel_sizes=(13,), small_kernel_size=small)
    torch.manual_seed(0)
    layer = RepLKNetLayer(config, 0, 0.1).eval()
    for norm in layer.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
                tensor += 0.3 * torch.randn(16 if len(tensor) == 16 else len(tensor))
            norm.running_var += torch.rand(len(norm.running_var))
    if form in ("merged", "folded"):
        with torch.no_grad():
            layer.large_kernel_block.large_kernel.merge()
            if form == "folded":
                layer.large_kernel_block.fold_batch_norm()
                layer.feed_forward.fold_batch_norm()
    return layer


def plainly(layer, x):
    """The layer by its definition."""
    block, network = layer.large_kernel_block, layer.feed_forward

    def conv_norm(module, x):
        return module.activation(module.norm(module.conv(x)))

    hidden = conv_norm(block.pointwise1, block.norm(x))
    large = block.large_kernel
    if large.merged is not None:
        hidden = large.merged(hidden)
    else:
        hidden = sum(conv_norm(branch, hidden) for branch in (large.large, large.small) if branch is not None)
    x = x + layer.drop_path(conv_norm(block.pointwise2, block.activation(hidden)))
    hidden = network.activation(conv_norm(network.pointwise1, network.norm(x)))
    return x + layer.drop_path(conv_norm(network.pointwise2, hidden))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_kernels_run_where_only_numbers_are_wanted(calls, form, dtype, tolerance):
    layer, x = make_layer(form).to(dtype), X.to(dtype)
    state = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        out, expected = layer(x), plainly(layer.double(), x.double())
    assert calls == PASSES
    assert out.dtype == dtype and out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    assert all(torch.equal(tensor.double(), state[name].double()) for name, tensor in layer.state_dict().items())


def test_frozen_norms_are_norms_too(calls):
    from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d, replace_batch_norm

    layer = make_layer()
    with torch.no_grad():
        expected = layer(X)
        calls.clear()
        replace_batch_norm(layer)
        layer.eval()
        assert isinstance(layer.feed_forward.norm, DetrFrozenBatchNorm2d)
        torch.testing.assert_close(layer(X), expected, rtol=1e-4, atol=1e-4)
    assert calls == PASSES


@pytest.mark.parametrize("form", FORMS)
def test_a_hook_on_one_module_sees_what_it_would(calls, form):
    """Every module, one at a time: its hook is called, and what it changes takes effect."""
    with torch.no_grad():
        expected = make_layer(form)(X)
        for name in [name for name, _ in make_layer(form).named_modules() if name]:
            layer, times = make_layer(form), []
            layer.get_submodule(name).register_forward_hook(lambda *_, times=times: times.append(1))
            torch.testing.assert_close(layer(X), expected, rtol=1e-5, atol=1e-5)
            assert len(times) == (2 if name == "drop_path" else 1), name
            layer.get_submodule(name).register_forward_hook(lambda module, inputs, out: out * 2)
            assert not torch.allclose(layer(X), expected, atol=1e-3), name


def replace_convs(layer):
    """What adapters and quantisation do: a layer of another class in the place of one."""
    for module in list(layer.modules()):
        if isinstance(module, ConvNorm):
            module.conv.__class__ = type("OtherConv", (nn.Conv2d,), {})


def replace_activations(layer):
    layer.feed_forward.activation = nn.Tanh()
    layer.large_kernel_block.activation = nn.Tanh()
    layer.large_kernel_block.pointwise1.activation = nn.Tanh()


def offload(layer):
    for module in layer.modules():
        module.forward = module.forward


def replace_norms(layer):
    for module in list(layer.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = type("OtherNorm", (nn.BatchNorm2d,), {})


@pytest.mark.parametrize("change", [replace_convs, offload, replace_norms])
def test_modules_run_where_they_are_changed(calls, change):
    layer = make_layer()
    change(layer)
    with torch.no_grad():
        torch.testing.assert_close(layer(X), plainly(layer, X), rtol=1e-5, atol=1e-5)
    assert not calls


def test_other_activations_take_effect(calls):
    layer = make_layer()
    replace_activations(layer)
    with torch.no_grad():
        torch.testing.assert_close(layer(X), plainly(layer, X), rtol=1e-5, atol=1e-5)


def test_modules_run_with_gradients(calls):
    layer, x = make_layer(), X.clone().requires_grad_()
    ours = torch.autograd.grad(layer(x).sum(), (x, *layer.parameters()))
    plain = torch.autograd.grad(plainly(layer, x).sum(), (x, *layer.parameters()))
    for actual, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)
    assert not calls


def test_modules_run_in_training(calls):
    """Batch statistics are gathered without gradients too, and whole samples dropped."""
    layer = make_layer().train()
    before = layer.feed_forward.norm.running_mean.clone()
    with torch.no_grad():
        layer(X)
    assert not calls and not torch.equal(layer.feed_forward.norm.running_mean, before)


def test_modules_run_in_autocast(calls):
    layer = make_layer()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(X), plainly(layer, X), rtol=5e-2, atol=5e-2)
    assert not calls


@torch.no_grad()
def test_modules_run_where_more_than_numbers_is_wanted(calls):
    layer = make_layer()
    expected = plainly(layer, X)
    near = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(torch.func.vmap(layer)(X[:, None])[:, 0], expected, **near)
    torch.testing.assert_close(torch.export.export(layer, (X,)).module()(X), expected, **near)
    torch.testing.assert_close(torch.jit.trace(layer, (X,), check_trace=False)(X), expected, **near)
    with FlopCounterMode(display=False) as counter:
        layer(X)
    assert counter.get_total_flops() > 0 and not calls


@torch.no_grad()
@pytest.mark.parametrize("form", ["plain", "folded"])
def test_compiled_layers_keep_the_kernels(calls, form):
    layer = make_layer(form)
    torch.testing.assert_close(
        torch.compile(layer, backend="aot_eager", fullgraph=True)(X), plainly(layer, X), rtol=1e-5, atol=1e-5
    )
    assert calls == PASSES


def test_new_weights_take_effect_at_once(calls):
    layer = make_layer()
    with torch.no_grad():
        layer(X)
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.is_floating_point():
                tensor.data.mul_(1.1)
        torch.testing.assert_close(layer(X), plainly(layer, X), rtol=1e-5, atol=1e-4)
