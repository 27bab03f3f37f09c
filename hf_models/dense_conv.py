"""Dense 3x3 convolutions of large maps, with 16 multiplications where their definition has 36.

By Winograd's algorithm, https://arxiv.org/abs/1509.09308.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .execution import are_plain, is_untouched, only_computes
from .hub_kernels import get_function


def dense_conv(conv: nn.Module, input: torch.Tensor, relu: bool = False) -> torch.Tensor:
    """`conv(input)`, or the ReLU of it, in less time for a 3x3 nn.Conv2d of many pixels and channels.

    That is on a CPU in float32, where nothing but numbers is wanted and a compiled kernel is there (see
    `hf-models kernels status`); anywhere else the module runs. In bfloat16 PyTorch's convolution is as fast.

    Args:
        conv: An nn.Conv2d, or what a tool put in its place.
        input: (N, in_channels, H, W), channels-last for the kernel to run.
        relu: Whether negative results become 0.

    Returns:
        (N, out_channels, H_out, W_out).
    """
    if only_computes() and _is_3x3(conv) and _is_faster(conv, input):
        tensors = input, conv.weight, conv.bias
        if kernel := get_function("winograd-conv", "conv3x3", "cpu", *tensors):
            return kernel(*tensors, relu)
    out = conv(input)
    return F.relu(out) if relu else out


def _is_3x3(conv: nn.Module) -> bool:
    """Whether it is PyTorch's, in one group, and keeps the size."""
    return (
        is_untouched(conv, nn.Conv2d)
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.dilation == conv.padding == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def _is_faster(conv: nn.Conv2d, input: torch.Tensor) -> bool:
    """Whether the kernel takes the tensors, and less time for them than PyTorch."""
    return (
        are_plain(input)
        and input.ndim == 4
        and all(tensor.is_cpu and tensor.dtype == torch.float32 for tensor in (input, conv.weight))
        and not torch.is_autocast_enabled("cpu")
        and input.stride(1) == 1
        and min(conv.in_channels, conv.out_channels) >= 64
        and len(input) * -(-input.shape[2] // 2) * -(-input.shape[3] // 2) >= 64
    )
