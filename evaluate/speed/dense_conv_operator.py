"""The dense 3x3 convolution, and what could be run instead of it."""

import torch
from torch import nn
from torch.nn import functional as F

from hf_models.dense_conv import dense_conv

from .implementations import Implementation, Operator, Size

SHAPES = {  # images or regions, input and output channels, height and width: heads at 800 x 1333 and 512 x 512 pixels
    "pyramid4": (1, 256, 256, 200, 334),
    "pyramid8": (1, 256, 256, 100, 167),
    "pyramid16": (1, 256, 256, 50, 84),
    "pyramid32": (1, 256, 256, 25, 42),
    "pyramid64": (1, 256, 256, 13, 21),
    "masks": (100, 256, 256, 14, 14),
    "boxes": (1000, 256, 256, 7, 7),
    "upernet16": (1, 512, 512, 32, 32),
    "upernet4": (1, 2048, 512, 128, 128),
}


def implementations(size: Size, dtype: torch.dtype, device: str) -> list[Implementation]:
    """Ours and PyTorch's, from both memory layouts."""
    images, in_channels, out_channels, height, width = size
    nchw = torch.randn(images, in_channels, height, width, device=device).to(dtype)
    weight = (torch.randn(out_channels, in_channels, 3, 3, device=device) / (3 * in_channels**0.5)).to(dtype)
    bias = torch.randn(out_channels, device=device).to(dtype)
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, device="meta")
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    channels_last = nchw.contiguous(memory_format=torch.channels_last)
    return [
        Implementation("ours", lambda input, *_: dense_conv(conv, input), (channels_last, weight, bias)),
        Implementation("F.conv2d, channels-last", pytorch, (channels_last, weight, bias)),
        Implementation("F.conv2d, NCHW", pytorch, (nchw, weight, bias)),
    ]


def pytorch(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """What users run: (N, C, H, W), (O, C, 3, 3), (O) -> (N, O, H, W)."""
    return F.conv2d(input, weight, bias, padding=1)


WINOGRAD_CONV = Operator(
    kernel="winograd-conv",
    shapes=SHAPES,
    size_format="{0} x {3} x {4}, {1} to {2}",
    size_title="N x H x W, channels",
    units=lambda size: 9 * size[0] * size[1] * size[2] * size[3] * size[4] / 1e6,  # a million multiplications
    implementations=implementations,
    expected=lambda size: pytorch,
    gradients=0,
)
