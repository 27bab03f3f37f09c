"""Deformable attention over feature maps of several sizes (Deformable DETR, section 4).

https://arxiv.org/abs/2010.04159

transformers has the layers around it. Its own version of this step is `grid_sample`, which is slow on a CPU.
"""

from collections.abc import Sequence

import torch
from transformers.models.deformable_detr import modeling_deformable_detr

from .deformable_aggregate import bilinear_sum
from .execution import is_recording
from .hub_kernels import get_function, set_reference


def multi_scale_deformable_attention(
    value: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    *,
    spatial_shapes: Sequence[tuple[int, int]],
) -> torch.Tensor:
    """Sum weighted bilinear samples of feature maps of several sizes, for each query and head.

    A compiled kernel computes it where there is one (see `hf-models kernels status`), else the PyTorch reference.

    Args:
        value: (N, S, heads, channels), the positions of all maps one after the other, row by row.
        sampling_locations: (N, Q, heads, levels, points, 2), where to sample: (x, y) as fractions of the map's width
            and height. Pixels outside are zero. A sample whose location is not finite adds nothing.
        attention_weights: (N, Q, heads, levels, points), the weight of each sample.
        spatial_shapes: Height and width of each map.

    Returns:
        (N, Q, heads * channels) in the dtype of `value`; arithmetic is in float32 at least.

    Raises:
        ValueError: A shape does not fit the others.
    """
    # autocast leaves them in several
    dtype = torch.promote_types(torch.promote_types(value.dtype, sampling_locations.dtype), attention_weights.dtype)
    tensors = [tensor.to(dtype) for tensor in (value, sampling_locations, attention_weights)]
    kernel = get_function("detection-ops", "multi_scale_deformable_attention", value.device.type, *tensors)
    out = (kernel or multi_scale_deformable_attention_reference)(*tensors, spatial_shapes=spatial_shapes)
    return out.to(value.dtype)


def multi_scale_deformable_attention_reference(
    value: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    *,
    spatial_shapes: Sequence[tuple[int, int]],
) -> torch.Tensor:
    """`multi_scale_deformable_attention` in PyTorch alone, for arguments of one dtype."""
    dtype = torch.promote_types(value.dtype, torch.float32)
    maps = value.to(dtype).split([height * width for height, width in spatial_shapes], dim=1)
    locations, weights = sampling_locations.to(dtype).unbind(dim=3), attention_weights.to(dtype).unbind(dim=3)
    total = 0
    for level, (height, width), location, weight in zip(maps, spatial_shapes, locations, weights, strict=True):
        x, y = location[..., 0] * width - 0.5, location[..., 1] * height - 0.5  # (N, Q, heads, points)
        # (N, H * W, heads, channels) -> (N, H, W, heads, channels), and the queries as a map of one row
        total = total + bilinear_sum(level.unflatten(1, (height, width)), *(t[:, None] for t in (x, y, weight)))
    return total.squeeze(1).to(value.dtype)


set_reference("detection-ops", multi_scale_deformable_attention_reference)


class MultiScaleDeformableAttention(modeling_deformable_detr.MultiScaleDeformableAttention):
    """Takes the place of the step without weights, `attn`, in transformers' layers of deformable attention."""

    def forward(
        self,
        value: torch.Tensor,
        value_spatial_shapes: torch.Tensor,
        value_spatial_shapes_list: list[tuple[int, int]],
        level_start_index: torch.Tensor,
        sampling_locations: torch.Tensor,
        attention_weights: torch.Tensor,
        im2col_step: int,
    ) -> torch.Tensor:
        """value (N, S, heads, channels), locations (N, Q, heads, levels, points, 2) -> (N, Q, heads * channels)."""
        if not is_recording():
            return multi_scale_deformable_attention(
                value, sampling_locations, attention_weights, spatial_shapes=value_spatial_shapes_list
            )
        # other runtimes know `grid_sample`, which takes one dtype only, and needs float32 for the locations
        dtype = torch.promote_types(value.dtype, torch.float32)
        sampled = super().forward(
            value.to(dtype),
            value_spatial_shapes,
            value_spatial_shapes_list,
            level_start_index,
            sampling_locations.to(dtype),
            attention_weights.to(dtype),
            im2col_step,
        )
        return sampled.to(value.dtype)
