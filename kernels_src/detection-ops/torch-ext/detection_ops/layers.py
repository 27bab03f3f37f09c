"""Layers for `kernels.kernelize`: they have no state of their own, and read that of the module they replace."""

from __future__ import annotations

import torch
from torch import nn

from ._attention import multi_scale_deformable_attention


class MultiScaleDeformableAttention(nn.Module):
    """What transformers' layers of Deformable DETR and its successors call under this name."""

    has_backward: bool = True
    can_torch_compile: bool = True

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
        return multi_scale_deformable_attention(
            value, sampling_locations, attention_weights, spatial_shapes=value_spatial_shapes_list
        )
