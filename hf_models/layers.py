"""Layers that several families share."""

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN


class DropPath(nn.Module):
    """Stochastic depth (https://arxiv.org/abs/1603.09382): drops a residual branch for whole samples while training.

    Kept samples are divided by the probability of being kept, so that the expectation is unchanged.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns a tensor (batch_size, ...)."""
        if self.rate == 0.0 or not self.training:
            return hidden_states
        keep = 1.0 - self.rate
        shape = (hidden_states.shape[0],) + (1,) * (hidden_states.ndim - 1)
        return hidden_states * hidden_states.new_empty(shape).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a map in (batch_size, channels, height, width).

    The result is laid out channels-last, the layout in which convolutions and linear layers are fast.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalAveragePooler(nn.Module):
    """Average of the last feature map over all positions."""

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Takes the stage outputs, each (batch_size, channels, height, width); returns (batch_size, channels)."""
        return feature_maps[-1].mean(dim=(2, 3))


class ConvPooler(nn.Module):
    """1x1 convolution, BatchNorm and activation, then the average over all positions (InternImage's `conv_head`)."""

    def __init__(self, config):
        super().__init__()
        self.conv = PointwiseConv2d(config.hidden_sizes[-1], config.pooled_size, bias=False)
        self.norm = nn.BatchNorm2d(config.pooled_size, eps=config.batch_norm_eps)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Takes the stage outputs, each (batch_size, channels, height, width); returns (batch_size, pooled_size)."""
        return self.activation(self.norm(self.conv(feature_maps[-1]))).mean(dim=(2, 3))


class LayerScale(nn.Module):
    """Learned factor on each channel (last dimension) of a residual branch."""

    def __init__(self, channels: int, initial_value: float):
        super().__init__()
        self.initial_value = initial_value
        self.scale = nn.Parameter(torch.full((channels,), float(initial_value)))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns a tensor (..., channels)."""
        return hidden_states * self.scale


def residual_scale(channels: int, initial_value: float | None) -> nn.Module:
    """A LayerScale, or nothing where a model has none (`initial_value=None`)."""
    return nn.Identity() if initial_value is None else LayerScale(channels, initial_value)


class DepthwiseConv(nn.Conv2d):
    """Depthwise convolution with bias and the same output size, on (batch_size, height, width, channels)."""

    def __init__(self, channels: int, kernel_size: int):
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # (N, H, W, C) seen as (N, C, H, W): a channels-last convolution without a copy
        return super().forward(hidden_states.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Linear(nn.Linear):
    """Linear layer that, without gradients on a CPU, is computed by oneDNN.

    PyTorch computes float32 linear layers with MKL, which leaves up to half of an AMD processor's speed unused, and
    copies the bias to the output before every product.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        if _computed_by_onednn(hidden_states, self.weight):
            return torch.ops.mkldnn._linear_pointwise(hidden_states, self.weight, self.bias, "none", [], "")
        return super().forward(hidden_states)


class PointwiseConv2d(nn.Conv2d):
    """1x1 convolution that, without gradients on a CPU, is computed as the linear layer that it is, by oneDNN.

    PyTorch computes it with MKL in float32, and as a convolution in bfloat16; either takes longer.

    Args:
        in_channels, out_channels, bias: As of nn.Conv2d, whose state dict it has.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch_size, in_channels, height, width) -> (batch_size, out_channels, height, width)."""
        # in another layout the linear layer would begin with a copy
        if hidden_states.stride(1) == 1 and _computed_by_onednn(hidden_states, self.weight):
            tokens, weight = hidden_states.permute(0, 2, 3, 1), self.weight.flatten(1)  # (N, H, W, C), (O, C)
            out = torch.ops.mkldnn._linear_pointwise(tokens, weight, self.bias, "none", [], "")
            return out.permute(0, 3, 1, 2)  # (N, H, W, O) -> (N, O, H, W), channels-last
        return super().forward(hidden_states)


def _computed_by_onednn(hidden_states: torch.Tensor, weight: torch.Tensor) -> bool:
    # the operator has no gradient and no place in an exported program
    return (
        hidden_states.device.type == weight.device.type == "cpu"
        and hidden_states.dtype == weight.dtype
        and weight.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and hidden_states.numel() > 0
    )


class ZeroLinear(Linear):
    """Linear layer that starts at zero."""

    def reset_parameters(self) -> None:
        init.zeros_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class XavierLinear(Linear):
    """Linear layer that starts with Xavier-uniform weights and no bias."""

    def reset_parameters(self) -> None:
        init.xavier_uniform_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)
