"""Layers with gradients of our own: their gradients in every way to ask for them, and when PyTorch's run."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers.activations import ACT2FN

from hf_models.fused_layers import activate
from hf_models.layers import linear, pointwise_conv
from hf_models.training_layers import TrainedGelu, TrainedLinear


class Block(nn.Module):
    """A linear layer and GELU; `plain` is what they compute by PyTorch."""

    def __init__(self, bias: bool = True):
        super().__init__()
        self.layer, self.activation = nn.Linear(6, 10, bias=bias), ACT2FN["gelu"]

    def forward(self, x):
        return activate(self.activation, linear(self.layer, x))

    def plain(self, x):
        return F.gelu(F.linear(x, self.layer.weight, self.layer.bias))


def make(bias: bool = True) -> tuple[Block, torch.Tensor]:
    torch.manual_seed(0)
    return Block(bias), torch.randn(2, 3, 5, 6, requires_grad=True)


def nodes(out: torch.Tensor) -> set[str]:
    """Names of the nodes of a graph."""
    found, waiting = set(), [out.grad_fn]
    while waiting:
        if node := waiting.pop():
            found.add(node.name())
            waiting += [following for following, _ in node.next_functions]
    return found


OURS = {"TrainedLinearBackward", "TrainedGeluBackward"}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("expanded", [True, False])
def test_gradients(bias, expanded):
    block, x = make(bias)
    out = block(x)
    assert nodes(out) >= OURS
    gradient = torch.ones(()).expand_as(out) if expanded else torch.randn_like(out).transpose(0, 1).contiguous()
    gradient = gradient if expanded else gradient.transpose(0, 1)
    inputs = (x, *block.parameters())
    found = torch.autograd.grad(out, inputs, gradient)
    expected = torch.autograd.grad(block.plain(x), inputs, gradient)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_only_what_is_asked_for():
    block, x = make()
    block.layer.weight.requires_grad_(False)
    torch.testing.assert_close(
        torch.autograd.grad(block(x).sum(), (x, block.layer.bias)),
        torch.autograd.grad(block.plain(x).sum(), (x, block.layer.bias)),
        rtol=1e-5,
        atol=1e-5,
    )
    assert block(x.detach()).requires_grad and x.grad is None


def test_pointwise_convolutions():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(6, 4, 1), torch.randn(2, 6, 3, 5).contiguous(memory_format=torch.channels_last)
    out = pointwise_conv(conv, x)
    assert "TrainedLinearBackward" in nodes(out)
    found = torch.autograd.grad(out.square().sum(), conv.parameters())
    expected = torch.autograd.grad(conv(x).square().sum(), conv.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def second_derivative(function, x):
    (first,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
    return torch.autograd.grad(first.square().sum(), x)[0]


def test_second_derivatives():
    block, x = make()
    torch.testing.assert_close(second_derivative(block, x), second_derivative(block.plain, x), rtol=1e-4, atol=1e-4)


def test_batches_of_gradients():
    block, x = make()
    x = x[0, 0].detach()
    for vectorize in (True, False):
        found = torch.autograd.functional.jacobian(block, x, vectorize=vectorize)
        torch.testing.assert_close(found, torch.autograd.functional.jacobian(block.plain, x), rtol=1e-5, atol=1e-5)


def test_pytorchs_layers_run_where_more_than_gradients_is_wanted():
    block, x = make()
    detached = x.detach()
    torch.testing.assert_close(
        torch.func.grad(lambda x: block(x).sum())(detached), torch.func.grad(lambda x: block.plain(x).sum())(detached)
    )
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(x).sum(), x), torch.autograd.grad(block.plain(x).sum(), x))
    torch.testing.assert_close(torch.jit.trace(block, (x,), check_trace=False)(x), block.plain(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert "TrainedLinearBackward" not in nodes(block(x))
    assert not nodes(Block().double()(x.double())) & OURS


def test_flops_are_counted():
    block, x = make()
    counts = []
    for function in (block, block.plain):
        with FlopCounterMode(display=False) as counter:
            function(x).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant):
    block, x = make()
    out = checkpoint(block, x, use_reentrant=reentrant)
    torch.testing.assert_close(
        torch.autograd.grad(out.sum(), x) if not reentrant else (_gradient(out, x),),
        torch.autograd.grad(block.plain(x).sum(), x),
        rtol=1e-5,
        atol=1e-5,
    )


def _gradient(out, x):
    out.sum().backward()
    return x.grad


def test_hooks_and_other_layers_are_called():
    block, x = make()
    seen = []
    block.layer.register_forward_hook(lambda module, inputs, out: seen.append(out))
    assert "TrainedLinearBackward" not in nodes(block(x)) and len(seen) == 1
    block.activation.register_full_backward_hook(lambda *_: seen.append(None))
    block(x).sum().backward()
    assert len(seen) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_gelu_in_every_type(dtype, autocast):
    """In autocast it keeps the type of its input, as PyTorch's does."""
    x = torch.linspace(-8, 8, 1001).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = activate(ACT2FN["gelu"], x)
    assert nodes(out) >= {"TrainedGeluBackward"} and out.dtype == dtype
    wide = x.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(F.gelu(wide).sum(), wide)
    (found,) = torch.autograd.grad(out.sum(), x)
    tolerance = max(5e-6, torch.finfo(dtype).eps)
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_nothing_to_compute():
    assert TrainedGelu.apply(torch.empty(0, 3, requires_grad=True)).shape == (0, 3)
    layer, x = nn.Linear(3, 2), torch.empty(0, 3, requires_grad=True)
    linear(layer, x).sum().backward()
    assert x.grad.shape == (0, 3) and not layer.weight.grad.any()


def test_saved_tensors_cannot_be_changed():
    x, weight = torch.randn(4, 3), torch.randn(2, 3, requires_grad=True)
    out = TrainedLinear.apply(x, weight, None)
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
