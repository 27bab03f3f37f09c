"""The public function, and what PyTorch must know of the operators: shapes for tracing, and the gradient."""

from __future__ import annotations

import math

import torch
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils.flop_counter import flop_registry, register_flop_formula

from ._ops import add_op_namespace_prefix, ops
from ._rule import kernel_is_faster


def depthwise_conv2d(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Convolve each channel with its own kernel: stride 1, as many zeros around as keep the size.

    Small kernels go to `F.conv2d`, which is faster there; the rule is in `_rule.py`.

    Args:
        input: (N, C, H, W) in any memory layout; float32, float64, bfloat16 or float16.
        weight: (C, 1, KH, KW), KH and KW odd, as nn.Conv2d has it.
        bias: (C).

    Returns:
        (N, C, H, W) in the layout and dtype of `input`. Sums are in float32 (float64 for float64), with one rounding.

    Raises:
        ValueError: A shape does not fit the others, or a side of the kernel is even.
        TypeError: The dtypes differ.
        RuntimeError: The same, from `F.conv2d`.
    """
    if input.ndim == weight.ndim == 4:
        channels, _, height, width = weight.shape
        # forward mode: PyTorch would take the derivative of an operator that has none of this kind for zero
        in_pytorch = forward_ad._current_level >= 0 or not kernel_is_faster(input, channels, height, width)
        if height % 2 and width % 2 and in_pytorch:
            # it checks the rest itself; checking twice would show in the time of a small convolution
            return F.conv2d(input, weight, bias, 1, (height // 2, width // 2), 1, channels)
    _check(input, weight, bias)
    return ops.depthwise_conv2d_forward(input, weight, bias)


def cpu_path() -> str:
    """The instruction set that the operator runs with on this processor: amx, avx512_bf16, avx512,
    avx2 or portable.

    The environment variable `LARGE_KERNEL_CONV_CPU_PATH` chooses a lesser one, for tests.
    """
    return ops.cpu_path()


def _check(input, weight, bias) -> None:
    if input.ndim != 4:
        raise ValueError(f"input: expected (N, C, H, W), got {tuple(input.shape)}")
    if weight.ndim != 4 or weight.shape[:2] != (input.shape[1], 1):
        raise ValueError(f"weight: expected ({input.shape[1]}, 1, KH, KW), got {tuple(weight.shape)}")
    if weight.shape[2] % 2 == 0 or weight.shape[3] % 2 == 0:
        raise ValueError(f"weight: expected odd KH and KW, got {tuple(weight.shape[2:])}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: expected ({weight.shape[0]},), got {tuple(bias.shape)}")
    dtypes = [tensor.dtype for tensor in (input, weight, bias) if tensor is not None]
    if len(set(dtypes)) > 1:
        raise TypeError(f"input, weight and bias must share a dtype, got {', '.join(map(str, dtypes))}")


@torch.library.register_fake(add_op_namespace_prefix("depthwise_conv2d_forward"))
def _forward_fake(input, weight, bias):
    return torch.empty_like(input)


@torch.library.register_fake(add_op_namespace_prefix("depthwise_conv2d_backward_weight"))
def _backward_weight_fake(grad_output, input, kernel_size):
    return input.new_empty((input.shape[1], 1, *kernel_size))


@torch.library.register_fake(add_op_namespace_prefix("depthwise_conv2d_backward_bias"))
def _backward_bias_fake(grad_output):
    return grad_output.new_empty(grad_output.shape[1])


def _flip(weight):
    """The kernel of the transposed convolution."""
    return weight.flip(2, 3)


def _setup_forward(ctx, inputs, output):
    input, weight, _ = inputs
    ctx.save_for_backward(input, weight)


def _backward(ctx, grad_output):
    input, weight = ctx.saved_tensors
    grad_input = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_input = ops.depthwise_conv2d_forward(grad_output, _flip(weight), None)
    if ctx.needs_input_grad[1]:
        grad_weight = ops.depthwise_conv2d_backward_weight(grad_output, input, weight.shape[2:])
    if ctx.needs_input_grad[2]:
        grad_bias = ops.depthwise_conv2d_backward_bias(grad_output)
    return grad_input, grad_weight, grad_bias


def _setup_backward_weight(ctx, inputs, output):
    grad_output, input, _ = inputs
    ctx.save_for_backward(grad_output, input)


def _backward_of_weight(ctx, grad):
    grad_output, input = ctx.saved_tensors
    grad_grad_output = grad_input = None
    if ctx.needs_input_grad[0]:
        grad_grad_output = ops.depthwise_conv2d_forward(input, grad, None)
    if ctx.needs_input_grad[1]:
        grad_input = ops.depthwise_conv2d_forward(grad_output, _flip(grad), None)
    return grad_grad_output, grad_input, None


def _setup_backward_bias(ctx, inputs, output):
    (grad_output,) = inputs
    ctx.shape = grad_output.shape


def _backward_of_bias(ctx, grad):
    return grad[:, None, None].expand(ctx.shape)


for _name, _gradient, _setup in (
    ("depthwise_conv2d_forward", _backward, _setup_forward),
    ("depthwise_conv2d_backward_weight", _backward_of_weight, _setup_backward_weight),
    ("depthwise_conv2d_backward_bias", _backward_of_bias, _setup_backward_bias),
):
    torch.library.register_autograd(add_op_namespace_prefix(_name), _gradient, setup_context=_setup)


@register_flop_formula(ops.depthwise_conv2d_forward)
def _forward_flops(input_shape, weight_shape, *args, out_shape, **kwargs) -> int:
    """As PyTorch counts a convolution: a product and a sum for each tap, those in the padding too."""
    return 2 * math.prod(input_shape) * math.prod(weight_shape[2:])


@register_flop_formula(ops.depthwise_conv2d_backward_weight)
def _backward_weight_flops(grad_shape, input_shape, kernel_size, out_shape, **kwargs) -> int:
    """What PyTorch counts for its own operator, so that the sum does not depend on who computes a layer.

    PyTorch 2.13 forgets that each group has its own channels, and counts this gradient too high.
    """
    channels = input_shape[1]
    padding, mask = [size // 2 for size in kernel_size], [False, True, False]
    count = flop_registry[torch.ops.aten.convolution_backward]
    geometry = (None, [1, 1], padding, [1, 1], False, [0, 0], channels, mask)
    return count(grad_shape, input_shape, out_shape, *geometry, out_val=(None, out_shape, None))
