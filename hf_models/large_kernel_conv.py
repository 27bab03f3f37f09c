"""Depthwise convolution with a very large kernel, re-parameterised by a small one (RepLKNet, section 3, guideline 3).

https://arxiv.org/abs/2203.06717
"""

import torch
from torch import nn
from torch.nn import functional as F

from .execution import is_transformed, is_untouched, only_computes
from .hub_kernels import get_function
from .layers import PointwiseConv2d


def depthwise_conv2d(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Convolve each channel with its own kernel: stride 1, as many zeros around as keep the size.

    A compiled kernel computes it where there is one (see `hf-models kernels status`), else the PyTorch reference.

    Args:
        input: (N, C, H, W), fastest in channels-last memory.
        weight: (C, 1, KH, KW), KH and KW odd.
        bias: (C).

    Returns:
        (N, C, H, W).
    """
    device = input.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # autocast knows F.conv2d, but not a kernel
        dtype = torch.get_autocast_dtype(device)
        input, weight, bias = (None if tensor is None else tensor.to(dtype) for tensor in (input, weight, bias))
    kernel = get_function("large-kernel-conv", "depthwise_conv2d", device, input, weight, bias)
    return (kernel or depthwise_conv2d_reference)(input, weight, bias)


def depthwise_conv2d_reference(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`depthwise_conv2d` in PyTorch alone: what a kernel must compute, and what runs where there is none.

    On a CPU it computes in channels-last memory, as PyTorch's convolution takes 50 times as long in the other above
    13x13. Elsewhere the layout is the caller's: nothing was measured that would be worth a copy of the map.
    """
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    if input.device.type == "cpu" and not is_transformed():  # vmap knows no memory format
        input = input.contiguous(memory_format=torch.channels_last)
    return F.conv2d(input, weight, bias, padding=padding, groups=weight.shape[0])


class LargeKernelDepthwiseConv2d(nn.Conv2d):
    """Drop-in for a depthwise nn.Conv2d with stride 1 that keeps the size, with the same state dict.

    It runs a compiled kernel where there is one and PyTorch's convolution is slower. To adopt it, replace

        nn.Conv2d(channels, channels, 31, padding=15, groups=channels)

    by `LargeKernelDepthwiseConv2d(channels, 31)`.

    Args:
        channels: Channels of input and output.
        kernel_size: (height, width), or one number for both; odd.
        bias: Whether there is a bias.
    """

    def __init__(self, channels: int, kernel_size: int | tuple[int, int], bias: bool = True):
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if height % 2 == 0 or width % 2 == 0:
            raise ValueError(f"kernel_size: expected odd numbers, got {kernel_size}")
        padding = (height // 2, width // 2)
        super().__init__(channels, channels, (height, width), padding=padding, groups=channels, bias=bias)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, channels, height, width)."""
        return depthwise_conv2d(input, self.weight, self.bias)


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
        if stride == 1 and groups == in_channels == out_channels:
            self.conv = LargeKernelDepthwiseConv2d(in_channels, kernel_size, bias=folded)
        elif kernel_size == stride == groups == 1:
            self.conv = PointwiseConv2d(in_channels, out_channels, bias=folded)
        else:
            self.conv = nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=folded
            )
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(out_channels, eps=eps)
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch_size, in_channels, height, width) -> (batch_size, out_channels, height / stride, width / stride)."""
        return self.activation(self.norm(self.conv(hidden_states)))

    def folded_weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the one convolution that equals convolution and BatchNorm (running statistics).

        They are new tensors, in float32 at least where there is a BatchNorm: who goes on computing rounds them once.
        """
        if isinstance(self.norm, nn.Identity):
            return self.conv.weight.clone(), self.conv.bias.clone()
        scale, shift = _scale_and_shift(self.norm)
        return self.conv.weight * scale[:, None, None, None], shift

    def fold(self, before: nn.BatchNorm2d | None = None) -> None:
        """Fold the BatchNorm into the convolution, and one that comes `before` a 1x1 convolution too."""
        weight, bias = self.folded_weights()
        if before is not None:
            scale, shift = _scale_and_shift(before)
            bias = bias + weight.flatten(1) @ shift
            weight = weight * scale[:, None, None]
        dtype = self.conv.weight.dtype
        self.conv.weight, self.conv.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))
        self.norm = nn.Identity()


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """The factor and the summand (channels) of a BatchNorm in evaluation, in float32 at least."""
    dtype = torch.promote_types(norm.weight.dtype, torch.float32)
    scale = norm.weight.to(dtype) * (norm.running_var.to(dtype) + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


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
            self.merged = LargeKernelDepthwiseConv2d(channels, kernel_size)
        else:
            self.large = ConvNorm(channels, channels, kernel_size, groups=channels, eps=eps)
            if small_kernel_size is not None:
                self.small = ConvNorm(channels, channels, small_kernel_size, groups=channels, eps=eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, channels, height, width)."""
        if self.merged is not None:
            return self.merged(hidden_states)
        if self._merges_on_the_fly():
            return depthwise_conv2d(hidden_states, *self.merged_weights())
        return self.sum_of_branches(hidden_states)

    def sum_of_branches(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`forward` of a module that is not merged, by its definition."""
        out = self.large(hidden_states)
        return out if self.small is None else out + self.small(hidden_states)

    def merged_weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the one convolution that equals the branches (running statistics), rounded once."""
        weight, bias = self.large.folded_weights()
        if self.small is not None:
            small_weight, small_bias = self.small.folded_weights()
            margin = (weight.shape[-1] - small_weight.shape[-1]) // 2
            inside = slice(margin, margin + small_weight.shape[-1])
            weight[..., inside, inside] += small_weight  # in place: another copy would show in the time of a small map
            bias = bias + small_bias
        dtype = self.large.conv.weight.dtype
        return weight.to(dtype), bias.to(dtype)

    def merge(self) -> None:
        """Replace the branches by one convolution with a bias; needs the running statistics of a trained model."""
        if self.merged is not None:
            return
        conv = self.large.conv
        with torch.device("meta"):
            merged = LargeKernelDepthwiseConv2d(conv.in_channels, conv.kernel_size)
        merged.weight, merged.bias = map(nn.Parameter, self.merged_weights())
        self.large, self.small, self.merged = None, None, merged

    def _merges_on_the_fly(self) -> bool:
        """Whether one convolution with weights merged for this call gives what the branches give, in less time.

        Not where a branch has batch statistics, or something that its weights do not tell: hooks, weights that lie
        elsewhere until its own `forward` is called (offloading), or an adapter in place of a layer.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_recording() or self.training:
            return False
        branches = [branch for branch in (self.large, self.small) if branch is not None]
        return all(_is_plain(module) for branch in branches for module in branch.modules())


def _is_plain(module: nn.Module) -> bool:
    changed = module.training or module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    return not changed and type(module) in (ConvNorm, LargeKernelDepthwiseConv2d, nn.BatchNorm2d, nn.Identity)
