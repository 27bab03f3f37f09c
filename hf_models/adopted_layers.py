"""What takes the place of the depthwise convolutions of a ConvNeXt and of the attention of a ViT, and puts it there.

The functions change a network in place. Layers that it has already keep their weights as far as these fit.
"""

import inspect
import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .deformable_conv import DCNv4
from .large_kernel_conv import (
    LargeKernelDepthwiseConv2d,
    ReparameterizableLargeKernelConv,
    is_depthwise_of_same_size,
)
from .layers import channels_last, on_channels_last

# The original's DCNv4 starts with weights of zero. Its output is then zero everywhere, and a LayerNorm directly behind
# it, as in ConvNeXt, multiplies gradients by 1 / sqrt(eps) = 1000. So the samples start with equal weights here.
AVERAGE = 1 / 9
# what the attention of a ViT may be called with, by timm and by transformers
_ARGUMENTS_OF_ATTENTION = {"x", "attn_mask", "is_causal", "hidden_states", "attention_mask", "kwargs"}


class DepthwiseDCNv4(nn.Module):
    """DCNv4 without projections for a map (N, C, H, W): like a depthwise convolution, it mixes no channels.

    Args:
        channels: Channels of input and output.
        group_width: Channels of each aggregation group; divides `channels`.
    """

    def __init__(self, channels: int, group_width: int):
        super().__init__()
        self.dcn = DCNv4(channels, channels // group_width, pointwise=False, initial_weight=AVERAGE)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (N, C, H, W), channels-last in memory."""
        return on_channels_last(self.dcn, channels_last(hidden_states))


class TokenDCNv4(nn.Module):
    """DCNv4 among the patches of an image, called as timm calls the attention of a ViT.

    Args:
        channels: Channels of each patch.
        group_width: Channels of each aggregation group; divides `channels`.
    """

    def __init__(self, channels: int, group_width: int):
        super().__init__()
        self.dcn = DCNv4(channels, channels // group_width, initial_weight=AVERAGE)

    def mix(self, tokens: torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
        """Takes and returns (N, L, C).

        Args:
            tokens: The patches, row by row.
            grid: Rows and columns of patches; a square by default.

        Raises:
            ValueError: Without a grid, the patches make no square.
        """
        side = math.isqrt(tokens.shape[1]) if grid is None else 0
        if grid is None and side**2 != tokens.shape[1]:
            raise ValueError(f"tokens: expected a square of patches and nothing else, got {tokens.shape[1]} tokens")
        # (N, L, C) -> (N, H, W, C) -> (N, L, C)
        return self.dcn(tokens.unflatten(1, grid or (side, side))).flatten(1, 2)

    def forward(
        self, tokens: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False
    ) -> torch.Tensor:
        """Takes and returns (N, L, C); every patch reads where it likes, so there is nothing to mask."""
        return self.mix(tokens)


class DCNv4Attention(TokenDCNv4):
    """The same, called as transformers calls the attention of a ViT."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        grid: tuple[int, int] | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, None]:
        """Takes (N, L, C); returns the same and no attention weights. What else attention is told is not needed."""
        return self.mix(hidden_states, grid), None


def depthwise_convs(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Name -> depthwise convolution, in order, of all that keep the size of the map and are larger than 1x1."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and is_depthwise_of_same_size(module) and max(module.kernel_size) > 1
    }


def use_large_kernels(network: nn.Module, kernel_sizes: Sequence[int], small_kernel_size: int | None = None) -> None:
    """Give the depthwise convolutions kernels of other sizes; a margin of zeros keeps what larger ones compute.

    Args:
        network: Any.
        kernel_sizes: For each of the [`depthwise_convs`].
        small_kernel_size: Of a parallel branch, with a BatchNorm on both, which start anew; `None` for none.
    """
    for (name, conv), size in zip(depthwise_convs(network).items(), kernel_sizes, strict=True):
        if small_kernel_size is None:
            layer = resized(conv, size)
        else:
            layer = ReparameterizableLargeKernelConv(conv.in_channels, size, small_kernel_size).to(conv.weight)
        network.set_submodule(name, layer.train(conv.training))


def resized(conv: nn.Conv2d, kernel_size: int) -> LargeKernelDepthwiseConv2d:
    """A depthwise convolution with a kernel of another size: the old one with a margin of zeros, or its middle."""
    with torch.device("meta"):
        layer = LargeKernelDepthwiseConv2d(conv.in_channels, kernel_size, bias=conv.bias is not None)
    rows, columns = ((kernel_size - side) // 2 for side in conv.kernel_size)
    weight = F.pad(conv.weight.detach(), (columns, columns, rows, rows))
    layer.weight, layer.bias = nn.Parameter(weight, conv.weight.requires_grad), conv.bias
    return layer


def use_depthwise_dcnv4(network: nn.Module, group_width: int) -> None:
    """Put DCNv4 in the place of the depthwise convolutions, whose weights are lost."""
    for name, conv in depthwise_convs(network).items():
        layer = DepthwiseDCNv4(conv.in_channels, group_width).to(conv.weight)
        network.set_submodule(name, layer.train(conv.training))


def use_attention_dcnv4(network: nn.Module, group_width: int) -> None:
    """Put DCNv4 in the place of attention; it keeps the projections of values and output."""
    for name, attention in attentions(network).items():
        output_proj = output_projection(attention)
        layer = (TokenDCNv4 if hasattr(attention, "qkv") else DCNv4Attention)(output_proj.out_features, group_width)
        layer.to(output_proj.weight)
        layer.dcn.value_proj, layer.dcn.output_proj = _value_projection(attention), output_proj
        network.set_submodule(name, layer.train(attention.training))


def attentions(network: nn.Module) -> dict[str, nn.Module]:
    """Name -> self-attention of a ViT of timm or transformers, in order, of all that need but tokens and masks."""
    return {
        name: module
        for name, module in network.named_modules()
        if any(_has_linears(module, names) for names in (("qkv", "proj"), ("q_proj", "k_proj", "v_proj", "o_proj")))
        and inspect.signature(module.forward).parameters.keys() <= _ARGUMENTS_OF_ATTENTION
    }


def output_projection(attention: nn.Module) -> nn.Linear:
    """The last layer of an attention."""
    return attention.proj if hasattr(attention, "qkv") else attention.o_proj


def _has_linears(module: nn.Module, names: tuple[str, ...]) -> bool:
    return all(isinstance(getattr(module, name, None), nn.Linear) for name in names)


def _value_projection(attention: nn.Module) -> nn.Linear:
    """The layer that makes the values; that of timm is the last third of one for queries, keys and values."""
    if not hasattr(attention, "qkv"):
        return attention.v_proj
    with torch.device("meta"):
        layer = nn.Linear(attention.qkv.in_features, attention.qkv.out_features // 3)
    for name, parameter in attention.qkv.named_parameters():
        setattr(layer, name, nn.Parameter(parameter.detach().chunk(3)[2].clone()))
    if attention.qkv.bias is None:
        layer.bias = None
    return layer
