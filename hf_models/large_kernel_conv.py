"""Depthwise convolution with a very large kernel, re-parameterised by a small one (RepLKNet, section 3, guideline 3).

https://arxiv.org/abs/2203.06717
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights


class ConvNorm(nn.Module):
    """Convolution and BatchNorm; the BatchNorm may be folded into the convolution, which then has a bias.

    Args:
        in_channels, out_channels, kernel_size, stride, groups: Of the convolution, which pads to the same size.
        eps: Epsilon of the BatchNorm.
        folded: Whether the BatchNorm is folded already.
        activation: Applied last.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        eps: float = 1e-5,
        folded: bool = False,
        activation: nn.Module | None = None,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=folded
        )
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(out_channels, eps=eps)
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch_size, in_channels, height, width) -> (batch_size, out_channels, height / stride, width / stride)."""
        return self.activation(self.norm(self.conv(hidden_states)))

    def folded_weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the one convolution that equals convolution and BatchNorm (running statistics)."""
        norm = self.norm
        if isinstance(norm, nn.Identity):
            return self.conv.weight, self.conv.bias
        return fuse_conv_bn_weights(
            self.conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )

    def fold(self, before: nn.BatchNorm2d | None = None) -> None:
        """Fold the BatchNorm into the convolution, and one that comes `before` a 1x1 convolution too."""
        weight, bias = self.folded_weights()
        if before is not None:
            scale = before.weight * (before.running_var + before.eps).rsqrt()
            shift = before.bias - before.running_mean * scale
            bias = bias + weight.flatten(1) @ shift
            weight = weight * scale[:, None, None]
        self.conv.weight, self.conv.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.norm = nn.Identity()


class ReparameterizableLargeKernelConv(nn.Module):
    """Sum of a large and a small depthwise convolution, each with BatchNorm; or the one convolution that equals both.

    Args:
        channels: Channels of input and output.
        kernel_size: Size of the large kernel, odd.
        small_kernel_size: Size of the small kernel, odd; `None` for no such branch.
        eps: Epsilon of the BatchNorms.
        merged: Whether the branches are merged already.
    """

    def __init__(
        self, channels: int, kernel_size: int, small_kernel_size: int | None, eps: float = 1e-5, merged: bool = False
    ):
        super().__init__()
        self.large = self.small = self.merged = None
        if merged:
            self.merged = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        else:
            self.large = ConvNorm(channels, channels, kernel_size, groups=channels, eps=eps)
            if small_kernel_size is not None:
                self.small = ConvNorm(channels, channels, small_kernel_size, groups=channels, eps=eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, channels, height, width)."""
        if self.merged is not None:
            return self.merged(hidden_states)
        out = self.large(hidden_states)
        return out if self.small is None else out + self.small(hidden_states)

    def merge(self) -> None:
        """Replace the branches by one convolution with a bias; needs the running statistics of a trained model."""
        if self.merged is not None:
            return
        conv = self.large.conv
        weight, bias = self.large.folded_weights()
        if self.small is not None:
            small_weight, small_bias = self.small.folded_weights()
            margin = (weight.shape[-1] - small_weight.shape[-1]) // 2
            weight, bias = weight + F.pad(small_weight, [margin] * 4), bias + small_bias
        merged = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            padding=conv.padding,
            groups=conv.groups,
            device="meta",
        )
        merged.weight, merged.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.large, self.small, self.merged = None, None, merged
