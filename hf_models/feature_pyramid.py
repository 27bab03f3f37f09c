"""Feature Pyramid Network (https://arxiv.org/abs/1612.03144, section 3)."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .dense_conv import dense_conv
from .layers import on_channels_last, pointwise_conv


class FeaturePyramid(nn.Module):
    """Brings all feature maps to one width, and adds to each what the coarser ones know.

    Args:
        in_channels: Channels of each feature map, highest resolution first.
        channels: Channels of each level.
        norm: "layer" for a LayerNorm after each convolution, as ViTDet has it (https://arxiv.org/abs/2203.16527);
            `None` for a bias instead.
        strided_levels: Levels beyond those of the maps, each made of the one before by a convolution of stride 2, as
            RetinaNet has them (https://arxiv.org/abs/1708.02002). Without any, there is one more, which subsamples.
    """

    def __init__(self, in_channels: list[int], channels: int, norm: str | None = None, strided_levels: int = 0):
        super().__init__()
        make_norm = partial(nn.LayerNorm, channels, eps=1e-5) if norm == "layer" else nn.Identity
        bias = norm is None
        self.lateral_convs = nn.ModuleList(nn.Conv2d(width, channels, 1, bias=bias) for width in in_channels)
        self.lateral_norms = nn.ModuleList(make_norm() for _ in in_channels)
        self.output_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=bias) for _ in in_channels)
        self.output_norms = nn.ModuleList(make_norm() for _ in in_channels)
        self.output_convs.extend(nn.Conv2d(channels, channels, 3, 2, padding=1) for _ in range(strided_levels))

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Takes maps (batch_size, in_channels[i], height, width), each half the resolution of the one before.

        Returns:
            A level (batch_size, channels, height, width) for each map, and those beyond, each of half the resolution
            of the one before.
        """
        levels = [
            on_channels_last(norm, pointwise_conv(conv, feature_map))
            for conv, norm, feature_map in zip(self.lateral_convs, self.lateral_norms, feature_maps, strict=True)
        ]
        for i in reversed(range(len(levels) - 1)):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[2:], mode="nearest")
        maps = len(levels)
        levels = [
            on_channels_last(norm, dense_conv(conv, level))
            for conv, norm, level in zip(self.output_convs[:maps], self.output_norms, levels, strict=True)
        ]
        if len(self.output_convs) == maps:
            return (*levels, levels[-1][:, :, ::2, ::2])
        for i, conv in enumerate(self.output_convs[maps:]):
            levels.append(conv(levels[-1] if i == 0 else F.relu(levels[-1])))
        return tuple(levels)
