"""The public functions, and what PyTorch must know of the operators: shapes, and that they have no gradient.

Every function takes float32, float64, bfloat16 or float16, the same for all tensors, and computes in float32 at least.
A shape or a dtype that does not fit is a RuntimeError.
"""

from __future__ import annotations

import functools

import torch
from torch.autograd import forward_ad

from ._ops import add_op_namespace_prefix, ops


def layer_norm(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    """`F.layer_norm` over the last dimension.

    Args:
        input: (..., C).
        weight, bias: (C).
        eps: Is added to the variance.

    Returns:
        (..., C), rounded once.
    """
    _refuse_derivatives("layer_norm", input, weight, bias)
    return ops.layer_norm(input, weight, bias, eps)


def add_layer_norm(
    input: torch.Tensor,
    branch: torch.Tensor,
    scale: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a residual branch, and normalise the sum for the next one.

    Args:
        input, branch: (..., C).
        scale: (C), a factor on the branch; `None` for none.
        weight, bias, eps: As in [`layer_norm`].

    Returns:
        `input + branch * scale`, rounded once, and the norm of that, (..., C) each.
    """
    _refuse_derivatives("add_layer_norm", input, branch, scale, weight, bias)
    return ops.add_layer_norm(input, branch, scale, weight, bias, eps)


def linear(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """`residual + F.linear(input, weight, bias) * scale`, rounded once.

    Args:
        input: (..., C_in).
        weight: (C_out, C_in).
        bias: (C_out).
        residual: (..., C_out); nothing is added without.
        scale: (C_out), a factor on the product.

    Returns:
        (..., C_out).
    """
    _refuse_derivatives("linear", input, weight, bias, residual, scale)
    return ops.linear(input, weight, bias, residual, scale)


def feed_forward(
    input: torch.Tensor,
    weight1: torch.Tensor,
    bias1: torch.Tensor | None,
    weight2: torch.Tensor,
    bias2: torch.Tensor | None,
    residual: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """`linear(gelu(linear(input, weight1, bias1)), weight2, bias2, residual, scale)`, some rows at a time.

    Args:
        input: (..., C_in).
        weight1: (hidden, C_in).
        bias1: (hidden).
        weight2: (C_out, hidden).
        bias2: (C_out).
        residual, scale: As in [`linear`].

    Returns:
        (..., C_out). What lies between is rounded once, after the activation.
    """
    _refuse_derivatives("feed_forward", input, weight1, bias1, weight2, bias2, residual, scale)
    return ops.feed_forward(input, weight1, bias1, weight2, bias2, residual, scale)


def gelu(input: torch.Tensor) -> torch.Tensor:
    """`F.gelu`, to 1e-6 in float32; in bfloat16 to 9 bits, or 4e-5 where the result is closer to 0; then rounded."""
    _refuse_derivatives("gelu", input)
    return ops.gelu(input)


def gelu_backward(gradient: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
    """The gradient of [`gelu`]'s input from that of its output: times the derivative, which is right to 4e-6.

    Args:
        gradient, input: Of one shape, any.

    Returns:
        The shape of both, rounded once.
    """
    _refuse_derivatives("gelu_backward", gradient, input)
    return ops.gelu_backward(gradient, input)


def depthwise_norm_gelu(
    input: torch.Tensor,
    kernel: torch.Tensor,
    kernel_bias: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """A depthwise 3x3 convolution that keeps the size, then [`layer_norm`], then [`gelu`].

    Args:
        input: (N, H, W, C).
        kernel: (C, 1, 3, 3), as nn.Conv2d has it.
        kernel_bias: (C).
        weight, bias, eps: As in [`layer_norm`].

    Returns:
        (N, H, W, C), rounded once.
    """
    _refuse_derivatives("depthwise_norm_gelu", input, kernel, kernel_bias, weight, bias)
    return ops.depthwise_norm_gelu(input, kernel, kernel_bias, weight, bias, eps)


@functools.cache
def multiplies_fast(dtype: torch.dtype) -> bool:
    """Whether `linear` and `feed_forward` are at home on this processor: elsewhere oneDNN multiplies faster."""
    if dtype == torch.bfloat16:  # with tiles (AMX) oneDNN is several times as fast
        return cpu_path() == "avx512_bf16" and not torch.cpu._is_amx_tile_supported()
    return dtype == torch.float32 and cpu_path().startswith("avx512")


def cpu_path() -> str:
    """The instruction set that the operators run with on this processor: avx512_bf16, avx512, avx2 or portable.

    The environment variable `FUSED_LAYERS_CPU_PATH` chooses a lesser one, for tests.
    """
    return ops.cpu_path()


def _refuse_derivatives(name: str, *tensors: torch.Tensor | None) -> None:
    """Here, as a gradient that is registered with the operators would cost more than a short call takes."""
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        raise NotImplementedError(f"{name}: the compiled kernel has no gradient; call it in torch.no_grad()")
    if forward_ad._current_level >= 0:  # PyTorch would take the forward derivative of the operator for zero
        raise NotImplementedError(f"{name}: the compiled kernel has no forward-mode derivatives (jvp)")


@torch.library.register_fake(add_op_namespace_prefix("linear"))
def _linear_fake(input, weight, *arguments):
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


@torch.library.register_fake(add_op_namespace_prefix("feed_forward"))
def _feed_forward_fake(input, weight1, bias1, weight2, *arguments):
    return input.new_empty((*input.shape[:-1], weight2.shape[0]))


def _fake(input, *arguments):
    return input.new_empty(input.shape)


def _add_fake(input, *arguments):
    return input.new_empty(input.shape), input.new_empty(input.shape)


for _name in ("layer_norm", "add_layer_norm", "gelu", "gelu_backward", "depthwise_norm_gelu"):
    torch.library.register_fake(add_op_namespace_prefix(_name))(_add_fake if _name == "add_layer_norm" else _fake)
