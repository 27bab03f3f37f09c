"""The public function, and what PyTorch must know of the operators: shapes for tracing, and the gradient."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ._ops import add_op_namespace_prefix, ops


def depthwise_conv2d(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return ops.depthwise_conv2d_forward(input, weight, bias)


def cpu_path() -> str:
    """The instruction set that the operator runs with on this processor: avx512, avx2 or portable.

    The environment variable `LARGE_KERNEL_CONV_CPU_PATH` chooses a lesser one, for tests.
    """
    return ops.cpu_path()


@torch.library.register_fake(add_op_namespace_prefix("depthwise_conv2d_forward"))
def _forward_fake(input, weight, bias):
    return torch.empty_like(input)


@torch.library.register_fake(add_op_namespace_prefix("depthwise_conv2d_backward_weight"))
def _backward_weight_fake(grad_output, input, kernel_size):
    return input.new_empty((input.shape[1], 1, *kernel_size))


@torch.library.register_fake(add_op_namespace_prefix("depthwise_conv2d_backward_bias"))
def _backward_bias_fake(grad_output):
    return grad_output.new_empty(grad_output.shape[1])


def _setup_forward(ctx, inputs, output):
    input, weight, bias = inputs
    ctx.save_for_backward(input, weight)


def _backward(ctx, grad_output):
    input, weight = ctx.saved_tensors
    grad_input = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:  # the same convolution with the flipped kernel
        grad_input = ops.depthwise_conv2d_forward(grad_output, weight.flip(2, 3), None)
    if ctx.needs_input_grad[1]:
        grad_weight = ops.depthwise_conv2d_backward_weight(grad_output, input, weight.shape[2:])
    if ctx.needs_input_grad[2]:
        grad_bias = ops.depthwise_conv2d_backward_bias(grad_output)
    return grad_input, grad_weight, grad_bias


torch.library.register_autograd(
    add_op_namespace_prefix("depthwise_conv2d_forward"), _backward, setup_context=_setup_forward
)
