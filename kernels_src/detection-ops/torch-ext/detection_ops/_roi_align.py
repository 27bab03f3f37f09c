"""RoIAlign, and what PyTorch must know of its operators: shapes for tracing, and the gradients."""

import torch
from torch.autograd import forward_ad

from ._ops import add_op_namespace_prefix, ops


def roi_align(features: torch.Tensor, rois: torch.Tensor, output_size: int, spatial_scale: float) -> torch.Tensor:
    """Divide each region into bins, and average bilinear samples of the features in each of them.

    Regions are aligned: the centre of the first pixel of an image lies at 0.5. A bin has ceil(side of the region /
    output_size) samples in each direction, about one a pixel. A sample further than one pixel outside the features is
    zero, and takes part in the average.

    Args:
        features: (N, C, H, W) in any memory layout; float32, float64, bfloat16 or float16.
        rois: (R, 5): the index of the image, then the left, top, right and bottom edge in pixels of the image. Regions
            without area, or not finite, give zeros. They have no gradient.
        output_size: Bins in each direction.
        spatial_scale: Pixels of the features for each pixel of the image.

    Returns:
        (R, C, output_size, output_size) in the dtype of `features`; sums are in float32 at least, with one rounding.

    Raises:
        ValueError: A shape does not fit the others.
        RuntimeError: On a CPU, where there is no image of an index. On a GPU, its region gives zeros.
        NotImplementedError: Forward-mode derivatives are asked for.
    """
    if forward_ad._current_level >= 0:  # PyTorch would take the forward derivative of the operator for zero
        raise NotImplementedError("roi_align: the compiled kernel has no forward-mode derivatives (jvp)")
    if features.ndim != 4:
        raise ValueError(f"features: expected (N, C, H, W), got {tuple(features.shape)}")
    if rois.ndim != 2 or rois.shape[1] != 5:
        raise ValueError(f"rois: expected (R, 5), got {tuple(rois.shape)}")
    rois = rois.detach().to(torch.promote_types(features.dtype, torch.float32))
    return ops.roi_align_forward(features, rois, output_size, spatial_scale)


@torch.library.register_fake(add_op_namespace_prefix("roi_align_forward"))
def _forward_fake(features, rois, output_size, spatial_scale):
    return features.new_empty((rois.shape[0], features.shape[1], output_size, output_size))


@torch.library.register_fake(add_op_namespace_prefix("roi_align_backward"))
def _backward_fake(grad_output, rois, size, spatial_scale):
    return grad_output.new_empty(size)


def _setup_forward(ctx, inputs, output):
    features, rois, _, ctx.spatial_scale = inputs
    ctx.save_for_backward(rois)
    ctx.size = features.shape


def _backward(ctx, grad_output):
    return ops.roi_align_backward(grad_output, *ctx.saved_tensors, ctx.size, ctx.spatial_scale), None, None, None


def _setup_backward(ctx, inputs, output):
    grad_output, rois, _, ctx.spatial_scale = inputs
    ctx.save_for_backward(rois)
    ctx.output_size = grad_output.shape[-1]


def _backward_of_backward(ctx, grad):
    """The gradient is linear in that of the output, and so its own gradient is the operator."""
    return ops.roi_align_forward(grad, *ctx.saved_tensors, ctx.output_size, ctx.spatial_scale), None, None, None


for _name, _gradient, _setup in (
    ("roi_align_forward", _backward, _setup_forward),
    ("roi_align_backward", _backward_of_backward, _setup_backward),
):
    torch.library.register_autograd(add_op_namespace_prefix(_name), _gradient, setup_context=_setup)
