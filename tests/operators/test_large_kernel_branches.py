"""Large and small kernel as one convolution: merged for good, or for one call without gradients."""

import copy

import pytest
import torch
from torch import nn

from hf_models import large_kernel_conv
from hf_models.large_kernel_conv import ReparameterizableLargeKernelConv


@pytest.fixture(params=[5, None], ids=["small", "no small"])
def module(request):
    """As trained: norms that do something."""
    generator = torch.Generator().manual_seed(0)
    module = ReparameterizableLargeKernelConv(16, 13, request.param).eval()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
                tensor += 0.3 * torch.randn(16, generator=generator)
            norm.running_var += torch.rand(16, generator=generator)
    return module


@pytest.fixture
def convolutions(monkeypatch):
    """One entry for each depthwise convolution that runs: the sides of its kernel."""
    ran, original = [], large_kernel_conv.depthwise_conv2d

    def recorded(input, weight, bias=None):
        ran.append(tuple(weight.shape[2:]))
        return original(input, weight, bias)

    monkeypatch.setattr(large_kernel_conv, "depthwise_conv2d", recorded)
    return ran


def images(dtype=torch.float32):
    return torch.randn(2, 16, 9, 11, generator=torch.Generator().manual_seed(1)).to(dtype)


def branches_of(module):
    return [(13, 13)] if module.small is None else [(13, 13), (5, 5)]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
)
def test_one_convolution_gives_what_the_branches_give(module, convolutions, dtype, tolerance):
    module, state = module.to(dtype), copy.deepcopy(module.to(dtype).state_dict())
    expected = module(images(dtype)).detach()
    assert convolutions == branches_of(module)
    convolutions.clear()
    with torch.no_grad():
        out = module(images(dtype))
    assert convolutions == [(13, 13)]
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_rounded_once(module, dtype):
    module = module.to(dtype)
    exact = copy.deepcopy(module).double().merged_weights()
    for tensor, wanted in zip(module.merged_weights(), exact, strict=True):
        assert tensor.dtype == dtype
        error = (tensor.double() - wanted).abs()
        assert (error <= 0.501 * torch.finfo(dtype).eps * wanted.abs() + 1e-7).all()


def test_new_weights_take_effect_at_once(module):
    with torch.no_grad():
        module(images())
        module.large.conv.weight.mul_(2.0)
        torch.testing.assert_close(module(images()), module.sum_of_branches(images()), rtol=1e-5, atol=1e-5)


def test_merging_for_good_and_for_a_call_are_the_same(module):
    with torch.no_grad():
        expected = module(images())
        module.merge()
        assert torch.equal(module(images()), expected)


def test_batch_statistics_are_kept_without_gradients(module, convolutions):
    """Statistics may be gathered anew, of a whole module or of its norms alone."""
    norm = module.large.norm
    for training in (module, norm):
        module.eval()
        training.train()
        before = norm.running_mean.clone()
        with torch.no_grad():
            module(images())
        assert not torch.equal(norm.running_mean, before)
    assert convolutions == 2 * branches_of(module)


class Adapter(nn.Module):
    """A layer that has another's weight and does more, as adapters have."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.weight = layer, layer.weight

    def forward(self, images):
        return self.layer(images) + 1.0


def hook(module):
    module.large.conv.register_forward_hook(lambda module, inputs, output: output + 1.0)


def offload(module):
    forward = module.large.conv.forward
    module.large.conv.forward = lambda images: forward(images) + 1.0


def adapt(module):
    module.large.conv = Adapter(module.large.conv)


@pytest.mark.parametrize("change", [hook, offload, adapt])
def test_what_was_put_on_a_branch_takes_effect(module, change):
    with torch.no_grad():
        before = module(images())
        change(module)
        out = module(images())
    assert (out - before).abs().min() > 1e-3
    torch.testing.assert_close(out, module(images()).detach())


def test_folded_branches_keep_their_weights(module):
    """Their weights are the convolutions' own, to which nothing may be added."""
    with torch.no_grad():
        expected = module(images())
        for branch in filter(None, (module.large, module.small)):
            branch.fold()
        module.eval()
        state = copy.deepcopy(module.state_dict())
        for _ in range(2):
            torch.testing.assert_close(module(images()), expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
