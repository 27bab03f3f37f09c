"""Strided convolutions of stems and between stages; faster on a CPU where nothing but numbers is wanted."""

import torch
from torch import nn
from torch.nn import functional as F

from .execution import are_plain, is_untouched, only_compiles, only_computes

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
_MANY = 4  # output channels for each output pixel, from which on rearranging the weights takes longer than the pixels


def downsample(conv: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`conv(hidden_states)`, for a 3x3 convolution with stride 2.

    For channels-last maps PyTorch rearranges the weights in each call. Where there are more weights than pixels it is
    the pixels that are rearranged here: the weights lie in order for a product with 3x3 patches.

    Args:
        conv: An nn.Conv2d, or what a tool put in its place.
        hidden_states: (N, C, H, W), channels-last.

    Returns:
        (N, C_out, H', W').
    """
    if (
        (only_computes() or only_compiles())
        and _is_for_onednn(conv, hidden_states)
        and conv.kernel_size == (3, 3)
        and conv.stride == (2, 2)
        and conv.padding == conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.groups == 1
    ):
        product_or_conv = torch.ops.hf_models.downsample if only_compiles() else _downsample
        return product_or_conv(hidden_states, conv.weight, conv.bias)
    return conv(hidden_states)


def _downsample(hidden_states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A 3x3 convolution with stride 2 and padding 1, with what is faster for these sizes."""
    batch_size, _, height, width = hidden_states.shape
    pixels = batch_size * ((height + 1) // 2) * ((width + 1) // 2)
    if not 0 < pixels * _MANY <= len(weight):
        return F.conv2d(hidden_states, weight, bias, stride=2, padding=1)
    padded = F.pad(hidden_states.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (N, H + 2, W + 2, C)
    taps = [padded[:, y : y + height : 2, x : x + width : 2] for y in range(3) for x in range(3)]
    patches = torch.stack(taps, dim=-1).flatten(-2)  # (N, H', W', C * 9)
    out = torch.ops.hf_models.linear(patches, weight.flatten(1), bias)
    return out.permute(0, 3, 1, 2)  # (N, H', W', C_out) -> (N, C_out, H', W')


# torch.compile knows no sizes to choose by. A model's own copy of this file, from the Hub, finds the operator defined.
if not hasattr(torch.ops.hf_models, "downsample"):
    _library = torch.library.Library("hf_models", "FRAGMENT")
    _library.define("downsample(Tensor hidden_states, Tensor weight, Tensor? bias) -> Tensor")
    _library.impl("downsample", _downsample, "CPU")

    @torch.library.register_fake("hf_models::downsample", lib=_library)
    def _downsample_shape(hidden_states, weight, bias):
        batch_size, _, height, width = hidden_states.shape
        out = hidden_states.new_empty(batch_size, (height + 1) // 2, (width + 1) // 2, len(weight))
        return out.permute(0, 3, 1, 2)  # (N, H', W', C_out) -> (N, C_out, H', W')


def conv_norm_relu(conv: nn.Module, norm: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`F.relu(norm(conv(hidden_states)))`; BatchNorm becomes part of the weights.

    Args:
        conv: An nn.Conv2d without bias, or what a tool put in its place.
        norm: An nn.BatchNorm2d, or what a tool put in its place.
        hidden_states: (N, C, H, W).

    Returns:
        (N, C_out, H', W').
    """
    if (
        only_computes()
        and _is_for_onednn(conv, hidden_states)
        and conv.bias is None
        and conv.padding_mode == "zeros"
        and is_untouched(norm, nn.BatchNorm2d)
        and norm.affine
        and norm.track_running_stats
        and not norm.training
    ):
        scale = norm.weight.float() * (norm.running_var.float() + norm.eps).rsqrt()
        shift = torch.addcmul(norm.bias.float(), norm.running_mean.float(), scale, value=-1)
        weight, bias = (tensor.to(conv.weight.dtype) for tensor in (conv.weight * scale[:, None, None, None], shift))
        return F.conv2d(hidden_states, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups).relu_()
    return F.relu(norm(conv(hidden_states)))


def _is_for_onednn(conv: nn.Module, hidden_states: torch.Tensor) -> bool:
    """Whether oneDNN has PyTorch's convolution for these tensors."""
    return (
        _HAS_ONEDNN
        and is_untouched(conv, nn.Conv2d)
        and are_plain(hidden_states)
        and hidden_states.is_cpu
        and conv.weight.is_cpu
        and hidden_states.dtype == conv.weight.dtype
        and hidden_states.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_autocast_enabled("cpu")
        and hidden_states.numel() > 0
    )
