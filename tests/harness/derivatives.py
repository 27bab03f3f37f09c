"""Every way in which PyTorch differentiates or transforms a function, each with the right value beside it."""

import torch
from torch.autograd import forward_ad

STEP = 1e-6  # of finite differences in float64


def _scalar(function):
    return lambda *inputs: function(*inputs).sin().sum()


def _moved(inputs, directions, step):
    return [tensor + step * direction for tensor, direction in zip(inputs, directions, strict=True)]


def _along(gradients, directions):
    return sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))


def _difference(function, inputs, directions):
    """The derivative of what `function` returns (tensors) along the directions."""
    ahead, behind = (function(*_moved(inputs, directions, step)) for step in (STEP, -STEP))
    return [(a - b) / (2 * STEP) for a, b in zip(ahead, behind, strict=True)]


def _gradients(function, inputs, create_graph=False):
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    return inputs, torch.autograd.grad(_scalar(function)(*inputs), inputs, create_graph=create_graph)


def _every_input(inputs):
    return tuple(range(len(inputs)))


def jvp(function, inputs, directions):
    return [torch.func.jvp(function, tuple(inputs), tuple(directions))[1]]


def dual_numbers(function, inputs, directions):
    with forward_ad.dual_level():
        duals = map(forward_ad.make_dual, inputs, directions)
        return [forward_ad.unpack_dual(function(*duals)).tangent]


def double_backward_trick(function, inputs, directions):
    return [torch.autograd.functional.jvp(function, tuple(inputs), tuple(directions))[1]]


def jacfwd(function, inputs, directions):
    jacobians = torch.func.jacfwd(function, argnums=_every_input(inputs))(*inputs)
    return [_contracted(jacobians, inputs, directions)]


def jacrev(function, inputs, directions):
    jacobians = torch.func.jacrev(function, argnums=_every_input(inputs))(*inputs)
    return [_contracted(jacobians, inputs, directions)]


def _contracted(jacobians, inputs, directions):
    products = (
        jacobian.flatten(-tensor.ndim) @ direction.flatten()
        for jacobian, tensor, direction in zip(jacobians, inputs, directions, strict=True)
    )
    return sum(products)


def gradient(function, inputs, directions):
    return list(torch.func.grad(_scalar(function), argnums=_every_input(inputs))(*inputs))


def gradients_of_a_batch(function, inputs, directions):
    stacked = [torch.stack(pair) for pair in zip(inputs, _moved(inputs, directions, 1), strict=True)]
    batch = torch.vmap(torch.func.grad(_scalar(function), argnums=_every_input(inputs)))(*stacked)
    return [gradient[0] for gradient in batch]


def vmap(function, inputs, directions):
    stacked = [torch.stack(pair) for pair in zip(inputs, _moved(inputs, directions, 1), strict=True)]
    return list(torch.vmap(function)(*stacked))


def vmap_of_one_input(function, inputs, directions):
    first = torch.stack((inputs[0], inputs[0] + directions[0]))
    axes = (0, *(None for _ in inputs[1:]))
    return list(torch.vmap(function, in_dims=axes)(first, *inputs[1:]))


def double_backward(function, inputs, directions):
    inputs, first = _gradients(function, inputs, create_graph=True)
    return list(torch.autograd.grad(_along(first, directions), inputs))


def gradient_of_gradient(function, inputs, directions):
    every = _every_input(inputs)

    def first(*inputs):
        return _along(torch.func.grad(_scalar(function), argnums=every)(*inputs), directions)

    return list(torch.func.grad(first, argnums=every)(*inputs))


def forward_over_reverse(function, inputs, directions):
    first = torch.func.grad(_scalar(function), argnums=_every_input(inputs))
    return list(torch.func.jvp(first, tuple(inputs), tuple(directions))[1])


def batched_gradients(function, inputs, directions):
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    out = function(*inputs)
    outward = torch.stack((torch.zeros_like(out), out.detach().cos()))
    return [both[1] for both in torch.autograd.grad(out, inputs, outward, is_grads_batched=True)]


def _value(function, inputs, directions):
    with torch.no_grad():
        return [function(*inputs), function(*_moved(inputs, directions, 1))]


def _value_of_one_input(function, inputs, directions):
    with torch.no_grad():
        return [function(*inputs), function(inputs[0] + directions[0], *inputs[1:])]


def _first(function, inputs, directions):
    with torch.no_grad():
        return _difference(lambda *inputs: [function(*inputs)], inputs, directions)


def _gradient(function, inputs, directions):
    return list(_gradients(function, inputs)[1])


def _second(function, inputs, directions):
    return _difference(lambda *inputs: _gradients(function, inputs)[1], inputs, directions)


RIGHT_VALUES = {
    vmap: _value,
    vmap_of_one_input: _value_of_one_input,
    jvp: _first,
    dual_numbers: _first,
    double_backward_trick: _first,
    jacfwd: _first,
    jacrev: _first,
    gradient: _gradient,
    gradients_of_a_batch: _gradient,
    batched_gradients: _gradient,
    double_backward: _second,
    gradient_of_gradient: _second,
    forward_over_reverse: _second,
}


def check_derivative(way, function, reference, inputs) -> None:
    """Compare one of `RIGHT_VALUES` with what finite differences of the reference give.

    Args:
        way: A key of `RIGHT_VALUES`.
        function: What is tested.
        reference: The operator, exact in float64, with the right gradients.
        inputs: Tensors in float64; nothing jumps within `STEP` of them.
    """
    generator = torch.Generator().manual_seed(5)
    directions = [torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) for tensor in inputs]
    actual = way(function, inputs, directions)
    expected = RIGHT_VALUES[way](reference, inputs, directions)
    for ours, exact in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-6)
