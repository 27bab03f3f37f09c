"""Deformable attention, and what PyTorch must know of its operators: shapes for tracing, and the gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from ._ops import add_op_namespace_prefix, ops


def multi_scale_deformable_attention(
    value: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    *,
    spatial_shapes: Sequence[tuple[int, int]],
) -> torch.Tensor:
    """Sum weighted bilinear samples of feature maps of several sizes, for each query and head.

    Args:
        value: (N, S, heads, channels), the positions of all maps one after the other, row by row; float32, float64,
            bfloat16 or float16.
        sampling_locations: (N, Q, heads, levels, points, 2), where to sample: (x, y) as fractions of the map's width
            and height. Pixels outside are zero. A sample whose location is not finite adds nothing.
        attention_weights: (N, Q, heads, levels, points), the weight of each sample.
        spatial_shapes: Height and width of each map.

    Returns:
        (N, Q, heads * channels) in the dtype of the arguments; arithmetic is in float32 at least, with one rounding.

    Raises:
        ValueError: A shape does not fit the others.
        TypeError: The dtypes differ.
        NotImplementedError: Derivatives are asked for that the kernel does not have, and there is no reference; see
            [`set_reference`].
    """
    if forward_ad._current_level >= 0:  # PyTorch would take the forward derivative of the operator for zero
        reference = _in_pytorch("forward-mode derivatives (jvp)")
        return reference(value, sampling_locations, attention_weights, spatial_shapes=spatial_shapes)
    _check(value, sampling_locations, attention_weights, spatial_shapes)
    sizes = [side for shape in spatial_shapes for side in shape]
    return ops.deformable_attention_forward(value, sampling_locations, attention_weights, sizes)


def set_reference(reference: Callable) -> None:
    """Say what computes the derivatives that the kernel does not have: second ones, and those of forward mode.

    Args:
        reference: Has the arguments of [`multi_scale_deformable_attention`], and consists of PyTorch's own operators.
            Without it these derivatives are refused.
    """
    global _reference
    _reference = reference


_reference: Callable | None = None


def _check(value, locations, weights, spatial_shapes) -> None:
    if value.ndim != 4:
        raise ValueError(f"value: expected (N, S, heads, channels), got {tuple(value.shape)}")
    positions = sum(height * width for height, width in spatial_shapes)
    if positions != value.shape[1]:
        raise ValueError(f"spatial_shapes: expected {value.shape[1]} positions like value, got {positions}")
    if locations.ndim != 6:
        raise ValueError(
            f"sampling_locations: expected (N, Q, heads, levels, points, 2), got {tuple(locations.shape)}"
        )
    expected = (value.shape[0], locations.shape[1], value.shape[2], len(spatial_shapes), locations.shape[4])
    if locations.shape != (*expected, 2):
        raise ValueError(f"sampling_locations: expected {(*expected, 2)}, got {tuple(locations.shape)}")
    if weights.shape != expected:
        raise ValueError(f"attention_weights: expected {expected}, got {tuple(weights.shape)}")
    if not value.dtype == locations.dtype == weights.dtype:
        dtypes = f"{value.dtype}, {locations.dtype}, {weights.dtype}"
        raise TypeError(f"value, sampling_locations and attention_weights must share a dtype, got {dtypes}")


def _in_pytorch(derivatives: str) -> Callable:
    if _reference is None:
        raise NotImplementedError(
            f"multi_scale_deformable_attention: the compiled kernel has no {derivatives}; "
            "name a PyTorch version of it that has, with `set_reference`"
        )
    return _reference


@torch.library.register_fake(add_op_namespace_prefix("deformable_attention_forward"))
def _forward_fake(value, locations, weights, spatial_shapes):
    return value.new_empty((value.shape[0], locations.shape[1], value.shape[2] * value.shape[3]))


@torch.library.register_fake(add_op_namespace_prefix("deformable_attention_backward"))
def _backward_fake(grad_output, value, locations, weights, spatial_shapes):
    return tuple(tensor.new_empty(tensor.shape) for tensor in (value, locations, weights))


def _setup_context(ctx, inputs, output):
    *tensors, ctx.spatial_shapes = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad_output):
    if torch.is_grad_enabled():  # create_graph=True: what is returned will be differentiated in turn
        reference = _in_pytorch("second derivatives (create_graph=True)")
        shapes = list(zip(ctx.spatial_shapes[::2], ctx.spatial_shapes[1::2], strict=True))
        _, gradients = torch.func.vjp(lambda *inputs: reference(*inputs, spatial_shapes=shapes), *ctx.saved_tensors)
        return *gradients(grad_output), None
    return *ops.deformable_attention_backward(grad_output, *ctx.saved_tensors, ctx.spatial_shapes), None


torch.library.register_autograd(
    add_op_namespace_prefix("deformable_attention_forward"), _backward, setup_context=_setup_context
)


@register_flop_formula(ops.deformable_attention_forward)
def _forward_flops(value_shape, locations_shape, *others, out_shape, **kwargs) -> int:
    """A product and a sum for each of the four pixels of a sample and each channel; nothing for the positions."""
    return math.prod(locations_shape) // 2 * 4 * value_shape[3] * 2


@register_flop_formula(ops.deformable_attention_backward)
def _backward_flops(grad_shape, value_shape, locations_shape, *others, out_shape, **kwargs) -> int:
    """As much for the gradients of the pixels, and again for those of their shares."""
    return 2 * _forward_flops(value_shape, locations_shape, out_val=None)
