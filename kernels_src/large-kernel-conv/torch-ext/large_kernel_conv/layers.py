"""Layers for `kernels.kernelize`: they have no state of their own, and read that of the module they replace."""

from __future__ import annotations

import torch
from torch import nn

from ._conv import depthwise_conv2d


class LargeKernelDepthwiseConv2d(nn.Module):
    """`depthwise_conv2d` with weight and bias of the replaced module, a depthwise nn.Conv2d that keeps the size."""

    has_backward: bool = True
    can_torch_compile: bool = True

    weight: torch.Tensor
    bias: torch.Tensor | None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Takes and returns (N, C, H, W)."""
        return depthwise_conv2d(input, self.weight, self.bias)
