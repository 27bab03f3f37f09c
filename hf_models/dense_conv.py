"""Dense 3x3 convolutions of large maps, with 16 multiplications where their definition has 36.

By Winograd's algorithm, https://arxiv.org/abs/1509.09308. A compiled kernel computes them on a CPU in float32, where
nothing but numbers is wanted and there is a kernel (see `hf-models kernels status`). Anywhere else PyTorch does: in
bfloat16 it is as fast.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .execution import are_plain, is_untouched, only_compiles, only_computes
from .hub_kernels import get_function


def dense_conv(conv: nn.Module, input: torch.Tensor, relu: bool = False) -> torch.Tensor:
    """`conv(input)`, or the ReLU of it, for a 3x3 nn.Conv2d that keeps the size in less time.

    Args:
        conv: Any nn.Conv2d, or what a tool put in its place.
        input: (N, in_channels, H, W), channels-last for the kernel to run.
        relu: Whether negative results become 0.

    Returns:
        (N, out_channels, H_out, W_out).
    """
    if _keeps_size(conv) and (kernel := _kernel(input, conv.weight, conv.bias)):
        return kernel(input, conv.weight, conv.bias, relu)
    out = conv(input)
    return F.relu(out) if relu else out


def conv3x3(input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`F.conv2d(input, weight, padding=1)` of (N, C, H, W) and (O, C, 3, 3), as [`dense_conv`] computes it."""
    if kernel := _kernel(input, weight, None):
        return kernel(input, weight)
    return F.conv2d(input, weight, padding=1)


def _keeps_size(conv: nn.Module) -> bool:
    """Whether it is PyTorch's, has 3x3 weights and one group, and keeps the size."""
    return (
        is_untouched(conv, nn.Conv2d)
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.dilation == conv.padding == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def _kernel(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Callable | None:
    """The kernel's function for these tensors; `None` where PyTorch takes less time, or is to run.

    With few tiles of 2 x 2 pixels the time would go into transforming the weights, with few channels the pixels.
    """
    if (
        not (only_computes() or only_compiles())
        or not (are_plain(input) and input.ndim == 4 and input.stride(1) == 1)
        or not all(tensor.is_cpu and tensor.dtype == torch.float32 for tensor in (input, weight))
        or torch.is_autocast_enabled("cpu")
        or min(weight.shape[:2]) < 32
        or len(input) * -(-input.shape[2] // 2) * -(-input.shape[3] // 2) < 49
    ):
        return None
    return get_function("winograd-conv", "conv3x3", "cpu", input, weight, bias)
