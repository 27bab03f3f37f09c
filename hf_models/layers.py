"""Layers that several families share.

A layer that PyTorch has is PyTorch's: `type(layer) is nn.Linear`, as tools that replace or change layers expect it
(quantisation, adapters, pruning, hooks). The module that owns a layer does what is special: it marks a layer that
starts differently by [`starting_with`], and calls a layer through functions such as [`linear`], which compute the same
in less time where nobody would notice.
"""

import math
from collections.abc import Callable
from types import ModuleType

import torch
from torch import nn
from torch.utils.flop_counter import register_flop_formula
from transformers import initialization as init
from transformers.activations import ACT2FN

from .execution import is_transformed, is_untouched, only_compiles, only_computes, only_trains
from .hub_kernels import get_module
from .training_layers import TrainedLinear

_HAS_ONEDNN = torch.backends.mkldnn.is_available()  # Dynamo does not trace the question


def split_last(tensor: torch.Tensor, *sizes: int) -> torch.Tensor:
    """(..., C) -> (..., *sizes), without `unflatten`, in which the older ONNX exporter fixes the batch size."""
    return tensor.view(*tensor.shape[:-1], *sizes)


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


def channels_last(hidden_states: torch.Tensor) -> torch.Tensor:
    """A map (N, C, H, W) in the memory layout in which convolutions and linear layers are fast."""
    if is_transformed():  # vmap knows no layouts
        return hidden_states
    return hidden_states.contiguous(memory_format=torch.channels_last)


def on_channels_last(layer: Callable, hidden_states: torch.Tensor) -> torch.Tensor:
    """Apply a layer that takes (N, H, W, C), such as nn.LayerNorm, to a map (N, C, H, W); it becomes channels-last."""
    return layer(hidden_states.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def on_channels_first(conv: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """Apply a layer that takes (N, C, H, W), such as nn.Conv2d, to a map (N, H, W, C)."""
    # seen as (N, C, H, W): a channels-last convolution without a copy
    return conv(hidden_states.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class GlobalAveragePooler(nn.Module):
    """Average of the last feature map over all positions."""

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Takes the stage outputs, each (batch_size, channels, height, width); returns (batch_size, channels)."""
        return feature_maps[-1].mean(dim=(2, 3))


class ConvPooler(nn.Module):
    """1x1 convolution, BatchNorm and activation, then the average over all positions (InternImage's `conv_head`)."""

    def __init__(self, config):
        super().__init__()
        self.conv = nn.Conv2d(config.hidden_sizes[-1], config.pooled_size, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(config.pooled_size, eps=config.batch_norm_eps)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Takes the stage outputs, each (batch_size, channels, height, width); returns (batch_size, pooled_size)."""
        return self.activation(self.norm(pointwise_conv(self.conv, feature_maps[-1]))).mean(dim=(2, 3))


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


def depthwise_layer(channels: int, kernel_size: int) -> nn.Conv2d:
    """A depthwise convolution with bias and the same output size."""
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)


def zero_linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer that starts at zero."""
    return starting_with(init.zeros_, nn.Linear(in_features, out_features))


def xavier_linear(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    """A linear layer that starts with Xavier-uniform weights; a bias starts at zero."""
    return starting_with(init.xavier_uniform_, nn.Linear(in_features, out_features, bias=bias))


def starting_with(
    initialize: Callable[[torch.Tensor], torch.Tensor],
    layer: nn.Linear,
    initialize_bias: Callable[[torch.Tensor], torch.Tensor] = init.zeros_,
) -> nn.Linear:
    """Initialise the weight of a layer, now and whenever transformers does so; the bias becomes zero by default.

    The layer itself remembers how: outside transformers' own models `_init_weights` is never called for modules
    without parameters of their own, such as the module that owns the layer.
    """
    layer.initialize_weight, layer.initialize_bias = initialize, initialize_bias
    initialize_linear(layer, initialize)
    return layer


def initialize_linear(layer: nn.Linear, initialize: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Initialise the weight of a layer; the bias becomes zero, or starts as [`starting_with`] was told."""
    initialize(layer.weight)
    if layer.bias is not None:
        getattr(layer, "initialize_bias", init.zeros_)(layer.bias)


def linear(layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`layer(hidden_states)`, for an nn.Linear on a CPU by oneDNN: without gradients, or in float32.

    PyTorch computes float32 linear layers with MKL, which leaves up to half of an AMD processor's speed unused, and
    copies the bias to the output before every product. So does what torch.compile writes.

    Args:
        layer: An nn.Linear, or what a tool put in its place.
        hidden_states: (..., in_features).

    Returns:
        (..., out_features).
    """
    if (
        (product := _fast_product(hidden_states))
        and is_untouched(layer, nn.Linear)
        and _is_for_products(hidden_states, layer.weight)
    ):
        return product(hidden_states, layer.weight, layer.bias)
    return layer(hidden_states)


def pointwise_conv(conv: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`conv(hidden_states)`, for a 1x1 nn.Conv2d on a CPU as the linear layer that it is; see [`linear`].

    PyTorch computes it with MKL in float32, and as a convolution in bfloat16; either takes longer.

    Args:
        conv: An nn.Conv2d with kernel size and stride 1 and one group, or what a tool put in its place.
        hidden_states: (batch_size, in_channels, height, width).

    Returns:
        (batch_size, out_channels, height, width).
    """
    if (
        (product := _fast_product(hidden_states))
        and is_untouched(conv, nn.Conv2d)
        and _is_for_products(hidden_states, conv.weight)
        and hidden_states.stride(1) == 1  # in another layout the linear layer would begin with a copy
    ):
        tokens, weight = hidden_states.permute(0, 2, 3, 1), conv.weight.flatten(1)  # (N, H, W, C), (O, C)
        return product(tokens, weight, conv.bias).permute(0, 3, 1, 2)  # (N, H, W, O) -> (N, O, H, W), channels-last
    return conv(hidden_states)


def only_numbers(dtype: torch.dtype) -> bool:
    """Whether a compiled kernel may take the place of PyTorch's modules: nothing but numbers of this type is wanted.

    Where torch.compile stores the weights in a layout of its choice, its products take what follows them along. They
    are left alone if the kernel has none that are faster.
    """
    return only_computes() or (only_compiles() and (_multiplies_fast(dtype) or not _packs_weights(dtype)))


def product_kernel(hidden_states: torch.Tensor) -> ModuleType | None:
    """The module fused-layers, where only numbers are wanted, if its products are faster than oneDNN's here."""
    if type(hidden_states) is not torch.Tensor or not hidden_states.is_cpu or not only_numbers(hidden_states.dtype):
        return None
    if torch.is_autocast_enabled("cpu") or not _multiplies_fast(hidden_states.dtype):
        return None
    return get_module("fused-layers", "cpu")


@torch.compiler.assume_constant_result
def _multiplies_fast(dtype: torch.dtype) -> bool:
    kernel = get_module("fused-layers", "cpu")
    return kernel is not None and kernel.multiplies_fast(dtype)


def _fast_product(hidden_states: torch.Tensor) -> Callable | None:
    """What computes a linear layer where only numbers are wanted, or their gradients too; `None` elsewhere."""
    if only_numbers(hidden_states.dtype):
        if kernel := product_kernel(hidden_states):
            return kernel.linear
        return _linear_by_onednn if only_computes() else torch.ops.hf_models.linear
    return TrainedLinear.apply if hidden_states.dtype == torch.float32 and only_trains() else None


@torch.compiler.assume_constant_result
def _packs_weights(dtype: torch.dtype) -> bool:
    """Whether torch.compile will store the weights of PyTorch's layers in a layout of oneDNN's choice.

    In float32 it does so only where the precision of products is lowered, and otherwise in one of MKL's.
    """
    from torch._inductor import config  # takes two seconds, but not where something is compiled

    lowered = torch.backends.mkldnn.matmul.fp32_precision in ("bf16", "tf32")
    return config.freezing and (dtype != torch.float32 or lowered)


def _linear_by_onednn(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


# torch.compile takes `_linear_pointwise` itself only with weights that are constants. A model's own copy of this file,
# from the Hub, finds the operator defined.
if not hasattr(torch.ops.hf_models, "linear"):
    _library = torch.library.Library("hf_models", "FRAGMENT")
    _library.define("linear(Tensor input, Tensor weight, Tensor? bias) -> Tensor")
    _library.impl("linear", _linear_by_onednn, "CPU")

    @torch.library.register_fake("hf_models::linear", lib=_library)
    def _linear_shape(input, weight, bias):
        return input.new_empty((*input.shape[:-1], weight.shape[0]))

    @register_flop_formula(torch.ops.hf_models.linear)
    def _linear_flops(input_shape, weight_shape, *args, **kwargs) -> int:
        return 2 * math.prod(input_shape) * weight_shape[0]


def _is_for_products(hidden_states: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        type(hidden_states) is torch.Tensor
        and type(weight) in (torch.Tensor, nn.Parameter)
        and hidden_states.is_cpu
        and weight.is_cpu
        and hidden_states.dtype == weight.dtype
        and weight.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_autocast_enabled("cpu")
        and _HAS_ONEDNN
        and hidden_states.numel() > 0
    )
