"""Deformable convolutions DCNv3 and DCNv4: two ways to predict offsets and weights for `deformable_aggregate`.

Both are layers for any network: they take a map (N, H, W, C) and return one of the same shape.

DCNv3: https://arxiv.org/abs/2211.05778 (InternImage); DCNv4: https://arxiv.org/abs/2401.06197 (FlashInternImage).
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .deformable_aggregate import deformable_aggregate, sample_positions
from .fused_layers import conv_norm_activation
from .layers import (
    depthwise_layer,
    linear,
    on_channels_first,
    split_last,
    starting_with,
    xavier_linear,
    zero_linear,
)


def _packed_size(size: int) -> int:
    """DCNv4 rounds the width of its offset prediction up to a multiple of 8."""
    return math.ceil(size / 8) * 8


def _start_weights(bias: torch.Tensor, groups: int, points: int, value: float) -> None:
    """Initialise the bias of DCNv4's prediction: offsets of zero, and the weight `value` for each sample."""
    start = torch.zeros_like(bias)
    # each group's row is x0 y0 x1 y1 ... m0 m1 ...
    split_last(start[: groups * points * 3], groups, -1)[:, points * 2 :] = value
    init.copy_(bias, start)


def _blend(
    gate: nn.Module | None, features: torch.Tensor, value: torch.Tensor, aggregated: torch.Tensor
) -> torch.Tensor:
    """Blend the input of the aggregation into its output, by a number in (0, 1) for each group; all (N, H, W, C).

    Args:
        gate: The layer that predicts those numbers before their sigmoid; `None` for nothing of the input.
        features: What it predicts them from.
        value: Input of the aggregation.
        aggregated: Its output.
    """
    if gate is None:
        return aggregated
    share = linear(gate, features).sigmoid()[..., None]
    # (N, H, W, G, 1) -> (N, H, W, G, D) -> (N, H, W, C), what `repeat_interleave` does, but not in older ONNX exports
    share = share.expand(*share.shape[:-1], value.shape[-1] // share.shape[-2]).flatten(-2)
    return aggregated * (1 - share) + value * share


class DCNv3(nn.Module):
    """Deformable convolution v3 (InternImage, section 3.1): softmax-normalised weights, predicted from features.

    Offsets and weights come from a depthwise convolution, LayerNorm and activation of the input.
    The output has the size of the input.

    Args:
        channels: Channels of input and output.
        groups: Aggregation groups; each has its own offsets and weights.
        kernel_size: Side of the sampling grid.
        depthwise_kernel_size: Kernel of the depthwise convolution.
        offset_scale: Factor on the sampling grid and the offsets.
        center_feature_scale: Whether to blend the projected input into the aggregated features.
        hidden_act: Activation after the depthwise convolution.
        layer_norm_eps: Epsilon of the LayerNorm after the depthwise convolution.

    Raises:
        ValueError: `groups` does not divide `channels`, or `kernel_size` is even.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        kernel_size: int = 3,
        depthwise_kernel_size: int = 3,
        offset_scale: float = 1.0,
        center_feature_scale: bool = False,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-6,
    ):
        super().__init__()
        self.groups = groups
        self.aggregate_args = _aggregate_args(channels, groups, kernel_size, offset_scale)
        points = kernel_size**2
        self.depthwise_conv = depthwise_layer(channels, depthwise_kernel_size)
        self.norm = nn.LayerNorm(channels, eps=layer_norm_eps)
        self.activation = ACT2FN[hidden_act]
        self.offset = zero_linear(channels, groups * points * 2)
        self.mask = zero_linear(channels, groups * points)
        self.input_proj = xavier_linear(channels, channels)
        self.output_proj = xavier_linear(channels, channels)
        self.center_feature_scale = zero_linear(channels, groups) if center_feature_scale else None

    def _predict(
        self, hidden_states: torch.Tensor, linear: Callable = linear
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The features, and the offsets and the weights before softmax that are predicted from them."""
        features = conv_norm_activation(self.depthwise_conv, self.norm, self.activation, hidden_states)
        offset = split_last(linear(self.offset, features), self.groups, -1, 2)  # (N, H, W, G, K, 2)
        weight = split_last(linear(self.mask, features), self.groups, -1)  # (N, H, W, G, K)
        return features, offset, weight

    def sampling_points(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """For an input (N, H, W, C): x and y of every sample in its pixels, and weight, (N, H, W, G, K) each."""
        _, offset, weight = self._predict(hidden_states)
        return *sample_positions(offset, **self.aggregate_args), weight.softmax(dim=-1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (N, H, W, C)."""
        return linear(self.output_proj, self.aggregate(hidden_states))

    def aggregate(self, hidden_states: torch.Tensor, linear: Callable = linear) -> torch.Tensor:
        """All but the output projection; `linear(layer, input)` computes the linear layers."""
        value = linear(self.input_proj, hidden_states)
        features, offset, weight = self._predict(hidden_states, linear)
        aggregated = deformable_aggregate(
            split_last(value, self.groups, -1),  # (N, H, W, G, D)
            offset,
            weight,
            softmax=True,
            **self.aggregate_args,
        )
        return _blend(self.center_feature_scale, features, value, aggregated)


class DCNv4(nn.Module):
    """Deformable convolution v4 (DCNv4, section 3.1): unbounded weights, predicted by one layer with the offsets.

    The output has the size of the input. The options are those of the authors' module, whose weights fit. Without
    projections (`pointwise=False`) it mixes no channels and can take the place of a depthwise convolution.

    Args:
        channels: Channels of input and output.
        groups: Aggregation groups; each has its own offsets and weights.
        kernel_size: Side of the sampling grid.
        dilation: Spacing of the sampling grid.
        depthwise_kernel_size: Kernel of a depthwise convolution before the prediction; `None` for none.
        offset_scale: Factor on the sampling grid and the offsets.
        remove_center: Leave out the centre of the sampling grid.
        center_feature_scale: Whether to blend the projected input into the aggregated features.
        pointwise: Whether to project input and output.
        output_bias: Whether the output projection has a bias.
        initial_weight: Where the weight of every sample starts. The authors' layer starts with nothing but zeros, and
            1 / points makes it an average, which a norm can follow directly.

    Raises:
        ValueError: `groups` does not divide `channels`, or `kernel_size` is even.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        kernel_size: int = 3,
        dilation: int = 1,
        depthwise_kernel_size: int | None = None,
        offset_scale: float = 1.0,
        remove_center: bool = False,
        center_feature_scale: bool = False,
        pointwise: bool = True,
        output_bias: bool = True,
        initial_weight: float = 0.0,
    ):
        super().__init__()
        self.groups = groups
        self.points = kernel_size**2 - remove_center
        self.aggregate_args = _aggregate_args(channels, groups, kernel_size, offset_scale, dilation)
        self.aggregate_args["remove_center"] = remove_center
        self.depthwise_conv = (
            nn.Identity() if depthwise_kernel_size is None else depthwise_layer(channels, depthwise_kernel_size)
        )
        self.offset_mask = starting_with(
            init.zeros_,
            nn.Linear(channels, _packed_size(groups * self.points * 3)),
            partial(_start_weights, groups=groups, points=self.points, value=initial_weight),
        )
        self.value_proj = xavier_linear(channels, channels) if pointwise else nn.Identity()
        self.output_proj = xavier_linear(channels, channels, bias=output_bias) if pointwise else nn.Identity()
        self.center_feature_scale = zero_linear(channels, groups) if center_feature_scale else None

    def _predict(self, hidden_states: torch.Tensor, linear: Callable = linear) -> tuple[torch.Tensor, torch.Tensor]:
        """Offsets (N, H, W, G, K, 2) and weights (N, H, W, G, K)."""
        packed = linear(self.offset_mask, on_channels_first(self.depthwise_conv, hidden_states))
        # each group's row is x0 y0 x1 y1 ... m0 m1 ...; the padding at the end of the packed row stays unread
        packed = split_last(packed[..., : self.groups * self.points * 3], self.groups, -1)
        return split_last(packed[..., : self.points * 2], -1, 2), packed[..., self.points * 2 :]

    def sampling_points(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """For an input (N, H, W, C): x and y of every sample in its pixels, and weight, (N, H, W, G, K) each."""
        offset, weight = self._predict(hidden_states)
        return *sample_positions(offset, **self.aggregate_args), weight

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (N, H, W, C)."""
        return linear(self.output_proj, self.aggregate(hidden_states))

    def aggregate(self, hidden_states: torch.Tensor, linear: Callable = linear) -> torch.Tensor:
        """All but the output projection; `linear(layer, input)` computes the linear layers."""
        value = linear(self.value_proj, hidden_states)
        offset, weight = self._predict(hidden_states, linear)
        aggregated = deformable_aggregate(
            # under autocast without projections, only the prediction is in half precision
            split_last(value.to(offset.dtype), self.groups, -1),  # (N, H, W, G, D)
            offset,
            weight,
            **self.aggregate_args,
        )
        return _blend(self.center_feature_scale, aggregated, value, aggregated)


def _aggregate_args(channels: int, groups: int, kernel_size: int, offset_scale: float, dilation: int = 1) -> dict:
    """Arguments of `deformable_aggregate` for an output of the input's size."""
    if channels % groups:
        raise ValueError(f"groups must divide channels ({channels}), got {groups}")
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd for an output of the input's size, got {kernel_size}")
    padding = dilation * (kernel_size // 2)
    return {"kernel_size": kernel_size, "padding": padding, "dilation": dilation, "offset_scale": offset_scale}


__all__ = ["DCNv3", "DCNv4"]
