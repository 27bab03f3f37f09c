"""What lies between the products of a network, on tokens (..., C) or maps (N, H, W, C).

Each function computes what its modules compute, called one after the other. Where nothing but numbers is wanted, and
the modules are what they seem, one pass of a compiled kernel computes it (see `hf-models kernels status`); else the
modules run. In half precision the kernel rounds once where the modules round after every step.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from .execution import are_plain, is_recording, is_transformed, is_untouched, only_computes, only_trains
from .hub_kernels import get_function, get_module
from .layers import DropPath, LayerScale, on_channels_first, only_numbers
from .training_layers import TrainedGelu

_HALF = (torch.bfloat16, torch.float16)
_KERNEL_TYPES = (torch.float32, *_HALF)


def layer_norm(norm: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`norm(hidden_states)`, for an nn.LayerNorm on a CPU with gradients that are right in half precision.

    PyTorch adds the gradients of weight and bias in the type of the input there. In bfloat16 such a sum stops growing
    at 256 times its terms.

    Args:
        norm: An nn.LayerNorm over the last dimension, or what stands in its place.
        hidden_states: (..., C).

    Returns:
        (..., C).
    """
    if only_numbers(hidden_states.dtype) and _is_layer_norm(norm):
        if kernel := fused_kernel("layer_norm", hidden_states, norm.weight, norm.bias):
            return kernel(hidden_states, norm.weight, norm.bias, norm.eps)
    elif _adds_gradients_in_half_precision(norm, hidden_states):
        weight, bias = (parameter.float() for parameter in (norm.weight, norm.bias))
        wide = F.layer_norm(hidden_states.float(), norm.normalized_shape, weight, bias, norm.eps)
        return wide.to(hidden_states.dtype)
    return norm(hidden_states)


def add_branch(
    hidden_states: torch.Tensor, branch: torch.Tensor, scale: nn.Module, drop_path: nn.Module
) -> torch.Tensor:
    """`hidden_states + drop_path(scale(branch))`.

    Args:
        hidden_states: (..., C).
        branch: (..., C).
        scale: A LayerScale, an nn.Identity, or what stands in its place.
        drop_path: A DropPath, or what stands in its place.

    Returns:
        (..., C).
    """
    if only_computes() and is_untouched(scale, LayerScale) and _keeps_all(drop_path) and are_plain(branch):
        return torch.addcmul(hidden_states, branch, scale.scale)
    return hidden_states + drop_path(scale(branch))


def add_branch_and_norm(
    hidden_states: torch.Tensor, branch: torch.Tensor, scale: nn.Module, drop_path: nn.Module, norm: nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of [`add_branch`], and its [`layer_norm`], (..., C) each."""
    if only_numbers(hidden_states.dtype) and _is_layer_norm(norm) and _keeps_all(drop_path):
        factor = scale.scale if is_untouched(scale, LayerScale) else None
        if factor is not None or is_untouched(scale, nn.Identity):
            tensors = hidden_states, branch, factor, norm.weight, norm.bias
            if kernel := fused_kernel("add_layer_norm", *tensors):
                return kernel(*tensors, norm.eps)
    hidden_states = add_branch(hidden_states, branch, scale, drop_path)
    return hidden_states, layer_norm(norm, hidden_states)


def activate(activation: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`activation(hidden_states)`, for GELU to 1e-6 in float32 and to 9 bits in bfloat16; any shape."""
    if only_numbers(hidden_states.dtype) and is_gelu(activation) and (kernel := fused_kernel("gelu", hidden_states)):
        return kernel(hidden_states)
    if only_trains() and is_gelu(activation) and _has_kernel_for_gradients(hidden_states):
        return TrainedGelu.apply(hidden_states)
    return activation(hidden_states)


def conv_norm_activation(
    conv: nn.Module, norm: nn.Module, activation: nn.Module, hidden_states: torch.Tensor
) -> torch.Tensor:
    """A convolution that keeps the size, its norm and the activation of that.

    Args:
        conv: Takes (N, C, H, W).
        norm: An nn.LayerNorm over the channels, or what stands in its place.
        activation: Any.
        hidden_states: (N, H, W, C).

    Returns:
        (N, H, W, C).
    """
    if only_numbers(hidden_states.dtype) and is_depthwise_3x3(conv) and _is_layer_norm(norm) and is_gelu(activation):
        tensors = hidden_states, conv.weight, conv.bias, norm.weight, norm.bias
        if kernel := fused_kernel("depthwise_norm_gelu", *tensors):
            return kernel(*tensors, norm.eps)
    return activate(activation, layer_norm(norm, on_channels_first(conv, hidden_states)))


def fused_kernel(name: str, *tensors: torch.Tensor | None) -> Callable | None:
    """The kernel's function for these tensors on a CPU; `None` elsewhere, and where their types differ."""
    dtype = tensors[0].dtype
    if dtype == torch.float64 or torch.is_autocast_enabled("cpu"):
        return None
    if not all(tensor is None or (tensor.is_cpu and tensor.dtype == dtype) for tensor in tensors):
        return None
    kernel = get_module("fused-layers", "cpu") if are_plain(*tensors) else None
    return None if kernel is None else getattr(kernel, name)


def _has_kernel_for_gradients(hidden_states: torch.Tensor) -> bool:
    """Also in autocast, which leaves the layers that ask here in the type of their input."""
    is_fit = hidden_states.is_cpu and hidden_states.dtype in _KERNEL_TYPES
    return is_fit and get_function("fused-layers", "gelu_backward", "cpu", hidden_states) is not None


def _is_layer_norm(norm: nn.Module) -> bool:
    """Whether it is PyTorch's, over the last dimension, with weight and bias."""
    return is_untouched(norm, nn.LayerNorm) and norm.bias is not None and len(norm.normalized_shape) == 1


def is_gelu(activation: nn.Module) -> bool:
    """Whether it is transformers', and the exact one."""
    return is_untouched(activation, GELUActivation) and activation.act is F.gelu


def _keeps_all(drop_path: nn.Module) -> bool:
    return is_untouched(drop_path, DropPath) and (drop_path.rate == 0 or not drop_path.training)


def is_depthwise(conv: nn.Module, kernel_size: int) -> bool:
    """Whether it is a convolution with a bias, of each channel alone, that keeps the size."""
    return (
        type(conv) is nn.Conv2d
        and conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size == (kernel_size, kernel_size)
        and conv.padding == (kernel_size // 2, kernel_size // 2)
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.bias is not None
    )


def is_depthwise_3x3(conv: nn.Module) -> bool:
    """Whether it is one of 3x3 weights, whose attributes tell all that calling it does."""
    return is_depthwise(conv, 3) and is_untouched(conv, nn.Conv2d)


def _adds_gradients_in_half_precision(norm: nn.Module, hidden_states: torch.Tensor) -> bool:
    """Whether PyTorch would; a compiler computes the gradients in its own way."""
    return (
        torch.is_grad_enabled()
        and hidden_states.dtype in _HALF
        and hidden_states.is_cpu
        and not (torch.compiler.is_compiling() or is_recording() or is_transformed())
        and _is_layer_norm(norm)
        and norm.weight.requires_grad
        and are_plain(hidden_states)
    )
