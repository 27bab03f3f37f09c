"""The depthwise convolution with large kernels, and what could be run instead of it."""

import math
import sys
from collections.abc import Callable

import torch
from torch.nn import functional as F

from hf_models.hub_kernels import get_function
from hf_models.large_kernel_conv import depthwise_conv2d

from .implementations import Implementation, Operator, Size

SHAPES = {  # images, channels, height and width, kernel size: the stages of RepLKNet-31B at 224 pixels
    f"{size}x{kernel_size}_{batch}": (batch, channels, size, kernel_size)
    for channels, size, kernel_size in ((128, 56, 31), (256, 28, 29), (512, 14, 27), (1024, 7, 13))
    for batch in (1, 8)
}
PAPER_SHAPES = {f"paper{size}": (64, 384, size, 31) for size in (16, 32, 64)}  # 16 and 32: its table 1, on a GPU


def implementations(size: Size, dtype: torch.dtype, device: str) -> list[Implementation]:
    """Ours and PyTorch's, from both memory layouts."""
    batch, channels, side, kernel_size = size
    nchw = torch.randn(batch, channels, side, side, device=device).to(dtype)
    weight = (torch.randn(channels, 1, kernel_size, kernel_size, device=device) / kernel_size).to(dtype)
    bias = torch.randn(channels, device=device).to(dtype)
    channels_last = nchw.contiguous(memory_format=torch.channels_last)
    found = [
        ("ours", depthwise_conv2d, channels_last),
        ("ours, NCHW", depthwise_conv2d, nchw),
        ("F.conv2d, NCHW", pytorch, nchw),
        ("F.conv2d, channels-last", pytorch, channels_last),
        ("FFT", fft_convolution, nchw),
    ]
    if operator := kernel_operator(device):
        found.insert(2, ("ours, operator alone", operator, channels_last))
    return [Implementation(name, function, (input, weight, bias)) for name, function, input in found]


def kernel_operator(device: str) -> Callable | None:
    """The compiled operator itself, which never leaves a convolution to PyTorch; `None` where there is none."""
    function = get_function("large-kernel-conv", "depthwise_conv2d", device)
    return function and sys.modules[function.__module__].ops.depthwise_conv2d_forward


def pytorch(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """What users run: (N, C, H, W), (C, 1, K, K), (C) -> (N, C, H, W)."""
    return F.conv2d(input, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])


def fft_convolution(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The same by the convolution theorem, in float32 at least.

    Half a kernel of zeros is enough around an image that wraps around, as they part its end from its beginning.
    """
    height, width = input.shape[2:]
    margin, dtype = weight.shape[-1] // 2, input.dtype
    if dtype.itemsize < 4:
        input, weight, bias = input.float(), weight.float(), bias.float()
    padded = [_fast_length(length + margin) for length in (height, width)]
    kernel = F.pad(weight[:, 0], (0, padded[1] - weight.shape[-1], 0, padded[0] - weight.shape[-2]))
    kernel = kernel.roll((-margin, -margin), dims=(1, 2))  # its centre to the origin
    spectrum = torch.fft.rfft2(input, padded) * torch.fft.rfft2(kernel).conj()
    out = torch.fft.irfft2(spectrum, padded)[..., :height, :width]
    return (out + bias[:, None, None]).to(dtype)


def _fast_length(length: int) -> int:
    """The next multiple of 4 without a prime factor above 5: of these MKL's FFT is fast."""
    while length % 4 or 60 ** length.bit_length() % length:  # 60 = 2 * 2 * 3 * 5
        length += 1
    return length


LARGE_KERNEL_CONV = Operator(
    kernel="large-kernel-conv",
    shapes=SHAPES,
    size_format="{0} x {1} x {2} x {2}, {3} x {3}",
    size_title="N x C x H x W, kernel",
    units=lambda size: math.prod((*size, size[2], size[3])) / 1e3,  # a thousand multiplications
    implementations=implementations,
    expected=lambda size: fft_convolution,
    gradients=3,
    large_shapes=PAPER_SHAPES,
)
