"""Deformable attention over feature maps of several sizes (Deformable DETR, https://arxiv.org/abs/2010.04159, section 4).

transformers has the layers around it. Its own version of this step is `grid_sample`, which is slow on a CPU.
"""

from collections.abc import Sequence

import torch
from torch import nn
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
        (N, Q, heads * channels), in the widest dtype of the arguments; arithmetic is in float32 at least.

    Raises:
        ValueError: A shape does not fit the others.
    """
    tensors = (value, sampling_locations, attention_weights)
    dtype = torch.promote_types(torch.promote_types(value.dtype, sampling_locations.dtype), attention_weights.dtype)
    tensors = [tensor.to(dtype) for tensor in tensors]  # autocast leaves them in several
    kernel = get_function("detection-ops", "multi_scale_deformable_attention", value.device.type, *tensors)
    return (kernel or multi_scale_deformable_attention_reference)(*tensors, spatial_shapes=spatial_shapes)


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
    """The step of transformers' layers that has no weights, computed by [`multi_scale_deformable_attention`]."""

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
        if is_recording():  # other runtimes know `grid_sample`
            return super().forward(
                value,
                value_spatial_shapes,
                value_spatial_shapes_list,
                level_start_index,
                sampling_locations,
                attention_weights,
                im2col_step,
            )
        return multi_scale_deformable_attention(
            value, sampling_locations, attention_weights, spatial_shapes=value_spatial_shapes_list
        )


def replace_deformable_attention(model: nn.Module) -> None:
    """Replace the step without weights in all of transformers' layers that a model has; its state dict stays."""
    for module in list(model.modules()):
        if isinstance(module, modeling_deformable_detr.DeformableDetrMultiscaleDeformableAttention):
            module.attn = MultiScaleDeformableAttention()
