"""Depthwise convolution with large kernels (RepLKNet, https://arxiv.org/abs/2203.06717) as a compiled operator."""

from . import layers
from ._conv import cpu_path, depthwise_conv2d

__all__ = ["cpu_path", "depthwise_conv2d", "layers"]
