"""The public functions, and what PyTorch must know of the operators: shapes, and that they have no gradient.

Every function takes float32, float64, bfloat16 or float16, the same for all tensors, and computes in float32 at least.
A shape or a dtype that does not fit is a RuntimeError.
"""

from __future__ import annotations

import functools
import math

import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from ._ops import add_op_namespace_prefix, ops

BatchNorm = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]  # weight, bias, mean, variance, eps
_ACTIVATIONS = ("none", "relu", "gelu")


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


def pointwise_conv(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    norm: BatchNorm | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
    input_norm: BatchNorm | None = None,
    input_relu: bool = False,
) -> torch.Tensor:
    """A 1x1 convolution in channels-last memory, with what comes right before and after it, as one product.

    Args:
        input: (..., inputs).
        weight: (outputs, inputs).
        bias: (outputs).
        norm: A BatchNorm in evaluation over the outputs, in the place of the bias.
        activation: none, relu or gelu, to the accuracy of [`gelu`].
        residual: (..., outputs), added last.
        input_norm: One over the input.
        input_relu: Whether the input, as normalised, goes through a ReLU.

    Returns:
        (..., outputs), rounded once; in bfloat16 the input of the product is rounded too.
    """
    _refuse_derivatives("pointwise_conv", input, weight, bias, residual, *(norm or ())[:4], *(input_norm or ())[:4])
    scale = input_scale = input_shift = None
    if norm is not None:
        scale, bias = ops.batch_norm_factors(*norm)
    if input_norm is not None:
        input_scale, input_shift = ops.batch_norm_factors(*input_norm)
    return ops.pointwise_conv(
        input, weight, bias, scale, residual, input_scale, input_shift, input_relu, _ACTIVATIONS.index(activation)
    )


def merge_norms_and_kernels(
    kernels: torch.Tensor, norm: BatchNorm, small: torch.Tensor | None = None, small_norm: BatchNorm | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The one depthwise convolution that equals the sum of two with a BatchNorm each, or one of them alone.

    Args:
        kernels: (C, 1, KH, KW), KH and KW odd.
        norm: The BatchNorm in evaluation after them.
        small: (C, 1, SH, SW), odd and no larger.
        small_norm: The BatchNorm in evaluation after these.

    Returns:
        Kernels (C, 1, KH, KW), rounded once, and biases (C), in float32 at least.
    """
    _refuse_derivatives("merge_norms_and_kernels", kernels, *norm[:4], small, *(small_norm or ())[:4])
    scale, bias = ops.batch_norm_factors(*norm)
    if small is None:
        return ops.merge_kernels(kernels, scale, None, None), bias
    small_scale, small_bias = ops.batch_norm_factors(*small_norm)
    return ops.merge_kernels(kernels, scale, small, small_scale), bias + small_bias


def add_depthwise_gelu(input: torch.Tensor, kernel: torch.Tensor, kernel_bias: torch.Tensor) -> torch.Tensor:
    """The sum of the input and a depthwise 3x3 convolution of it that keeps the size, then [`gelu`].

    Args:
        input: (N, H, W, C).
        kernel, kernel_bias: As in [`depthwise_norm_gelu`].

    Returns:
        (N, H, W, C), rounded once.
    """
    _refuse_derivatives("add_depthwise_gelu", input, kernel, kernel_bias)
    return ops.add_depthwise_gelu(input, kernel, kernel_bias)


def attend(
    query: torch.Tensor, key_value: torch.Tensor, heads: int, kernel: torch.Tensor, kernel_bias: torch.Tensor
) -> torch.Tensor:
    """Self-attention over all pixels of an image, plus a depthwise 3x3 convolution of the values.

    Args:
        query: (N, H, W, C), the heads side by side; is divided by the root of the C / heads channels of a head.
        key_value: (N, H, W, 2 C): keys, then values.
        heads: Divides C.
        kernel, kernel_bias: As in [`depthwise_norm_gelu`].

    Returns:
        (N, H, W, C), rounded once.
    """
    _refuse_derivatives("attend", query, key_value, kernel, kernel_bias)
    return ops.attend(query, key_value, heads, kernel, kernel_bias)


def mix_scales(
    input: torch.Tensor,
    kernels: list[torch.Tensor],
    kernel_biases: list[torch.Tensor],
    expand: torch.Tensor,
    expand_bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """The mixed heads of SMT's modulation, then its aggregation: a grouped 1x1 convolution, BatchNorm, [`gelu`].

    Args:
        input: (N, H, W, 4 D): the four heads, D channels each.
        kernels: (D, 1, 3, 3), (D, 1, 5, 5), (D, 1, 7, 7), (D, 1, 9, 9): depthwise convolutions that keep the size.
        kernel_biases: (D) each.
        expand: (8 D, 4, 1, 1): from channel c of every head to channels 8 c to 8 c + 7.
        expand_bias: (8 D).
        mean, variance, weight, bias: Those of the BatchNorm, (8 D) each.
        eps: Is added to the variance.

    Returns:
        (N, H, W, 8 D), rounded once.
    """
    parameters = (expand, expand_bias, mean, variance, weight, bias)
    _refuse_derivatives("mix_scales", input, *kernels, *kernel_biases, *parameters)
    return ops.mix_scales(input, kernels, kernel_biases, *parameters, eps)


@functools.cache
def multiplies_fast(dtype: torch.dtype) -> bool:
    """Whether the products of this kernel are at home on this processor: elsewhere oneDNN multiplies faster."""
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


def _mix_fake(input, *arguments):
    return input.new_empty((*input.shape[:-1], 2 * input.shape[-1]))


@torch.library.register_fake(add_op_namespace_prefix("pointwise_conv"))
def _pointwise_fake(input, weight, *arguments):
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


@register_flop_formula(ops.pointwise_conv)
def _pointwise_flops(input_shape, weight_shape, *arguments, out_shape=None, **keywords) -> int:
    """As PyTorch counts a linear layer: a product and a sum for each weight and row."""
    return 2 * math.prod(input_shape[:-1]) * math.prod(weight_shape)


@torch.library.register_fake(add_op_namespace_prefix("batch_norm_factors"))
def _factors_fake(weight, *arguments):
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return weight.new_empty(weight.shape, dtype=dtype), weight.new_empty(weight.shape, dtype=dtype)


@torch.library.register_fake(add_op_namespace_prefix("merge_kernels"))
def _merge_fake(kernels, *arguments):
    return kernels.new_empty(kernels.shape)


_LIKE_INPUT = ("layer_norm", "gelu", "gelu_backward", "depthwise_norm_gelu", "add_depthwise_gelu", "attend")
_FAKES = dict.fromkeys(_LIKE_INPUT, _fake) | {"add_layer_norm": _add_fake, "mix_scales": _mix_fake}
for _name, _function in _FAKES.items():
    torch.library.register_fake(add_op_namespace_prefix(_name))(_function)
