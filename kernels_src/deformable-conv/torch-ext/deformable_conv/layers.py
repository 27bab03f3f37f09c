"""Layers for `kernels.kernelize`: they have no state of their own, and read that of the module they replace."""

from __future__ import annotations

import torch
from torch import nn

from ._aggregate import deformable_aggregate


class DeformableAggregation(nn.Module):
    """`deformable_aggregate` with the options of the replaced module, which has them as attributes."""

    has_backward: bool = True
    can_torch_compile: bool = True

    kernel_size: int | tuple[int, int]
    stride: int | tuple[int, int]
    padding: int | tuple[int, int]
    dilation: int | tuple[int, int]
    offset_scale: float
    remove_center: bool
    softmax: bool

    def forward(self, value: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """value (N, H, W, G, D), offset (N, H_out, W_out, G, K, 2), weight (N, H_out, W_out, G, K)."""
        return deformable_aggregate(
            value,
            offset,
            weight,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            offset_scale=self.offset_scale,
            remove_center=self.remove_center,
            softmax=self.softmax,
        )
