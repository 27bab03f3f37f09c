"""The public function, and what PyTorch must know of the operators: shapes for tracing, and the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from ._ops import add_op_namespace_prefix, ops


def deformable_aggregate(
    value: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    *,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    offset_scale: float = 1.0,
    remove_center: bool = False,
    softmax: bool = False,
) -> torch.Tensor:
    """Sum K weighted bilinear samples of `value` for each output position and group.

    Sample k of the output at (row, column) reads `value` at

        x = column * stride - padding + centre + (k_x * dilation - centre + offset_x) * offset_scale

    (y alike; centre = dilation * (kernel_size - 1) // 2), in pixels of the unpadded input; pixels outside are zero.
    Points run column by column: k = k_x * kernel_height + k_y. A sample whose position is not finite adds nothing.

    Args:
        value: (N, H, W, G, D), the features in G groups of D channels; float32, float64, bfloat16 or float16.
        offset: (N, H_out, W_out, G, K, 2), learned displacement (x, y) of each sample in pixels. Read without a copy
            where the points of a group lie together, whatever the other strides are.
        weight: (N, H_out, W_out, G, K), the weight of each sample. Strides as for `offset`.
        kernel_size: (height, width) or one number for both, as for `stride`, `padding` and `dilation`.
            K = height * width, less one with `remove_center`.
        offset_scale: Factor on the sampling grid and the offsets.
        remove_center: Leave out the kernel's centre point (odd kernels).
        softmax: Normalise `weight` over K first (DCNv3).

    Returns:
        (N, H_out, W_out, G * D) in the dtype of `value`; arithmetic is in float32 at least, with one rounding.

    Raises:
        ValueError: A shape does not fit the others.
        TypeError: The dtypes differ.
        NotImplementedError: Derivatives are asked for that the kernel does not have, and there is no reference; see
            [`set_reference`].
    """
    if forward_ad._current_level >= 0:  # PyTorch would take the forward derivative of the operator for zero
        return _in_pytorch("forward-mode derivatives (jvp)")(
            value,
            offset,
            weight,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            offset_scale=offset_scale,
            remove_center=remove_center,
            softmax=softmax,
        )
    geometry = (_pair(kernel_size), _pair(stride), _pair(padding), _pair(dilation))
    _check(value, offset, weight, *geometry, remove_center)
    return ops.deformable_aggregate_forward(value, offset, weight, *geometry, offset_scale, remove_center, softmax)


def set_reference(reference: Callable) -> None:
    """Say what computes the derivatives that the kernel does not have: second ones, and those of forward mode.

    Args:
        reference: Has the arguments of [`deformable_aggregate`], and consists of PyTorch's own operators. Without it
            these derivatives are refused.
    """
    global _reference
    _reference = reference


def cpu_path() -> str:
    """The instruction set that the operator runs with on this processor: avx512, avx2 or portable.

    The environment variable `DEFORMABLE_CONV_CPU_PATH` chooses a lesser one, for tests.

    Raises:
        RuntimeError: This is the build for another device.
    """
    if not hasattr(ops, "cpu_path"):
        raise RuntimeError("cpu_path: this build of the kernel is not for the CPU")
    return ops.cpu_path()


_reference: Callable | None = None


def _pair(size) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def _check(value, offset, weight, kernel_size, stride, padding, dilation, remove_center) -> None:
    if value.ndim != 5:
        raise ValueError(f"value: expected (N, H, W, G, D), got {tuple(value.shape)}")
    batch, height, width, groups, _ = value.shape
    height = (height + 2 * padding[0] - dilation[0] * (kernel_size[0] - 1) - 1) // stride[0] + 1
    width = (width + 2 * padding[1] - dilation[1] * (kernel_size[1] - 1) - 1) // stride[1] + 1
    expected = (batch, height, width, groups, kernel_size[0] * kernel_size[1] - remove_center)
    if offset.shape != (*expected, 2):
        raise ValueError(f"offset: expected {(*expected, 2)}, got {tuple(offset.shape)}")
    if weight.shape != expected:
        raise ValueError(f"weight: expected {expected}, got {tuple(weight.shape)}")
    if not value.dtype == offset.dtype == weight.dtype:
        raise TypeError(
            f"value, offset and weight must share a dtype, got {value.dtype}, {offset.dtype}, {weight.dtype}"
        )


def _in_pytorch(derivatives: str) -> Callable:
    if _reference is None:
        raise NotImplementedError(
            f"deformable_aggregate: the compiled kernel has no {derivatives}; "
            "name a PyTorch version of it that has, with `set_reference`"
        )
    return _reference


@torch.library.register_fake(add_op_namespace_prefix("deformable_aggregate_forward"))
def _forward_fake(value, offset, weight, *options):
    return value.new_empty((*offset.shape[:3], value.shape[3] * value.shape[4]))


@torch.library.register_fake(add_op_namespace_prefix("deformable_aggregate_backward"))
def _backward_fake(grad_output, value, offset, weight, *options):
    return tuple(tensor.new_empty(tensor.shape) for tensor in (value, offset, weight))


def _setup_context(ctx, inputs, output):
    value, offset, weight, *ctx.options = inputs
    ctx.save_for_backward(value, offset, weight)


def _backward(ctx, grad_output):
    if torch.is_grad_enabled():  # create_graph=True: what is returned will be differentiated in turn
        return (*_differentiable_gradients(ctx, grad_output), *(None for _ in ctx.options))
    deterministic = torch.are_deterministic_algorithms_enabled()
    gradients = ops.deformable_aggregate_backward(grad_output, *ctx.saved_tensors, *ctx.options, deterministic)
    return (*gradients, *(None for _ in ctx.options))


def _differentiable_gradients(ctx, grad_output):
    reference = _in_pytorch("second derivatives (create_graph=True)")
    names = ("kernel_size", "stride", "padding", "dilation", "offset_scale", "remove_center", "softmax")
    options = dict(zip(names, ctx.options, strict=True))
    _, gradients = torch.func.vjp(lambda *inputs: reference(*inputs, **options), *ctx.saved_tensors)
    return gradients(grad_output)


torch.library.register_autograd(
    add_op_namespace_prefix("deformable_aggregate_forward"), _backward, setup_context=_setup_context
)


@register_flop_formula(ops.deformable_aggregate_forward)
def _forward_flops(value_shape, offset_shape, *options, out_shape, **kwargs) -> int:
    """A product and a sum for each of the four pixels of a sample and each channel; nothing for the positions."""
    return math.prod(offset_shape) // 2 * 4 * value_shape[4] * 2


@register_flop_formula(ops.deformable_aggregate_backward)
def _backward_flops(grad_shape, value_shape, offset_shape, *options, out_shape, **kwargs) -> int:
    """As much for the gradients of the pixels, and again for those of their shares."""
    return 2 * _forward_flops(value_shape, offset_shape, out_val=None)
