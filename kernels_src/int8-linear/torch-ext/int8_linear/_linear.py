"""The public functions, and what PyTorch must know of the operators: shapes, and that they have no gradient.

Inputs and results are float32 or bfloat16. An input is rounded to unsigned 8-bit levels in steps of `scale`, of which
`zero_point` is 0. Numbers beyond become the nearest level, and NaN the lowest. Products and sums are exact integers. A
shape or a dtype that does not fit is a RuntimeError.
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

from ._ops import add_op_namespace_prefix, ops


def pack(weight: torch.Tensor) -> torch.Tensor:
    """Weights in the order in which the products read them.

    Args:
        weight: (outputs, inputs), int8.

    Returns:
        (outputs / 16, inputs / 4 + 1, 64), int8, both rounded up.
    """
    return ops.pack(weight)


def linear(
    input: torch.Tensor,
    scale: float,
    zero_point: int,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """`F.linear` of the rounded input and `weight * weight_scale`.

    Args:
        input: (..., inputs).
        scale, zero_point: The levels of the input.
        weight: As [`pack`] returns it.
        weight_scale, bias: (outputs), float32.

    Returns:
        (..., outputs), rounded once.
    """
    _refuse_derivatives("linear", input, weight_scale, bias)
    return ops.linear(input, scale, zero_point, weight, weight_scale, bias)


def feed_forward(
    input: torch.Tensor,
    scale: float,
    zero_point: int,
    weight1: torch.Tensor,
    weight_scale1: torch.Tensor,
    bias1: torch.Tensor | None,
    hidden_scale: float,
    hidden_zero_point: int,
    weight2: torch.Tensor,
    weight_scale2: torch.Tensor,
    bias2: torch.Tensor | None,
) -> torch.Tensor:
    """[`linear`], GELU to 2e-4, and [`linear`] of that; what lies between the two never leaves the cache.

    Args:
        input: (..., inputs).
        scale, zero_point, weight1, weight_scale1, bias1: The first layer, as in [`linear`].
        hidden_scale, hidden_zero_point, weight2, weight_scale2, bias2: The second.

    Returns:
        (..., outputs of the second), rounded once.
    """
    _refuse_derivatives("feed_forward", input, weight_scale1, bias1, weight_scale2, bias2)
    # fmt: off
    return ops.feed_forward(
        input, scale, zero_point, weight1, weight_scale1, bias1,
        hidden_scale, hidden_zero_point, weight2, weight_scale2, bias2,
    )
    # fmt: on


def cpu_path() -> str:
    """The instruction set that the operators run with on this processor: avx512_bf16, avx512_vnni or portable.

    The environment variable `INT8_LINEAR_CPU_PATH` chooses a lesser one, for tests.
    """
    return ops.cpu_path()


def _refuse_derivatives(name: str, *tensors: torch.Tensor | None) -> None:
    """Here, as a gradient that is registered with the operators would cost more than a short call takes."""
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        raise NotImplementedError(f"{name}: the compiled kernel has no gradient; call it in torch.no_grad()")
    if forward_ad._current_level >= 0:  # PyTorch would take the forward derivative of the operator for zero
        raise NotImplementedError(f"{name}: the compiled kernel has no forward-mode derivatives (jvp)")


@torch.library.register_fake(add_op_namespace_prefix("pack"))
def _pack_fake(weight):
    return weight.new_empty((weight.shape[0] + 15) // 16, (weight.shape[1] + 3) // 4 + 1, 64)


@torch.library.register_fake(add_op_namespace_prefix("linear"))
def _linear_fake(input, scale, zero_point, weight, weight_scale, bias):
    return input.new_empty(*input.shape[:-1], weight_scale.shape[0])


@torch.library.register_fake(add_op_namespace_prefix("feed_forward"))
def _feed_forward_fake(input, *arguments):
    return input.new_empty(*input.shape[:-1], arguments[8].shape[0])
