"""What lies between the products of SMT's layers, on maps (N, H, W, C).

Each function computes what its modules compute, called one after the other. Where nothing but numbers is wanted, and
the modules are what they seem, one pass of the kernel `fused-layers` computes it; else the modules run.
"""

from collections.abc import Callable

import torch
from torch import nn

from .execution import is_untouched, only_compiles, only_computes
from .fused_layers import activate, fused_kernel, is_depthwise, is_depthwise_3x3, is_gelu
from .layers import on_channels_first

_HEADS, _OUTPUTS = 4, 8  # of every published model, and so of the kernel


def mix_scales(
    convs: nn.ModuleList, expand: nn.Module, norm: nn.Module, activation: nn.Module, context: torch.Tensor
) -> torch.Tensor:
    """The mixed heads of the modulation, and their aggregation up to its activation (paper, sections 3.1 and 3.2).

    Args:
        convs: One convolution that keeps the size for each head.
        expand: A 1x1 convolution that mixes channel c of all heads, for each c.
        norm: A norm of maps (N, C, H, W).
        activation: Any.
        context: (N, H, W, C): the heads side by side.

    Returns:
        (N, H, W, out_channels of `expand`).
    """
    if (
        (only_computes() or only_compiles())
        and mixes_scales(convs, expand, norm)
        and all(is_untouched(layer, type(layer)) for layer in (*convs, expand, norm))
        and is_gelu(activation)
    ):
        tensors = mixing_tensors(convs, expand, norm)
        if kernel := fused_kernel("mix_scales", context, *tensors[0], *tensors[1], *tensors[2:]):
            return kernel(context, *tensors, norm.eps)
    heads = context.chunk(len(convs), dim=-1)
    heads = [on_channels_first(conv, head) for conv, head in zip(convs, heads, strict=True)]
    # channel c of every head side by side, (N, H, W, C / heads, heads) -> (N, H, W, C) -> (N, C, H, W)
    mixed = torch.stack(heads, dim=-1).flatten(-2).permute(0, 3, 1, 2)
    return activation(norm(expand(mixed))).permute(0, 2, 3, 1)  # (N, C', H, W) -> (N, H, W, C')


def add_conv_and_activate(conv: nn.Module, activation: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`activation(hidden_states + conv(hidden_states))`.

    Args:
        conv: Takes and returns (N, C, H, W).
        activation: Any.
        hidden_states: (N, H, W, C).

    Returns:
        (N, H, W, C).
    """
    if (only_computes() or only_compiles()) and is_depthwise_3x3(conv) and is_gelu(activation):
        tensors = hidden_states, conv.weight, conv.bias
        if kernel := fused_kernel("add_depthwise_gelu", *tensors):
            return kernel(*tensors)
    return activate(activation, hidden_states + on_channels_first(conv, hidden_states))


def attention_kernel(conv: nn.Module, query: torch.Tensor, key_value: torch.Tensor) -> Callable | None:
    """The kernel's attention with a depthwise convolution of the values; `None` where PyTorch's is to run.

    Args:
        conv: The convolution.
        query: (N, H, W, C).
        key_value: (N, H, W, 2 C).
    """
    if (only_computes() or only_compiles()) and is_depthwise_3x3(conv):
        return fused_kernel("attend", query, key_value, conv.weight, conv.bias)
    return None


def mixes_scales(convs: nn.ModuleList, expand: nn.Module, norm: nn.Module) -> bool:
    """Whether these are PyTorch's, as in the published models, and the norm is that of evaluation."""
    return (
        len(convs) == _HEADS
        and all(is_depthwise(conv, 3 + 2 * i) for i, conv in enumerate(convs))
        and is_pointwise(expand)
        and expand.in_channels == _HEADS * expand.groups
        and expand.out_channels == _OUTPUTS * expand.groups
        and expand.bias is not None
        and type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and not norm.training
        and norm.running_mean.dtype == norm.running_var.dtype == norm.weight.dtype
    )


def mixing_tensors(convs: nn.ModuleList, expand: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple:
    """What the kernel's function `mix_scales` takes between the map and the epsilon."""
    kernels, biases = [conv.weight for conv in convs], [conv.bias for conv in convs]
    return kernels, biases, expand.weight, expand.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias


def is_pointwise(conv: nn.Module) -> bool:
    """Whether it is a convolution each of whose outputs depends on one pixel, that at its own place."""
    return type(conv) is nn.Conv2d and conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0)
