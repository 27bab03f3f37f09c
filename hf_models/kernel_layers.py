"""Layers of PyTorch by the kernel fused-layers, for whoever has looked at them: see `execution.are_untouched`."""

from types import ModuleType

import torch
from torch import nn

from .layers import LayerScale


def normalize(kernel: ModuleType, norm: nn.LayerNorm, hidden_states: torch.Tensor) -> torch.Tensor:
    """`norm(hidden_states)`, (..., C)."""
    return kernel.layer_norm(hidden_states, *tensors_of(norm), norm.eps)


def multiply(kernel: ModuleType, layer: nn.Linear, hidden_states: torch.Tensor, *residual_and_scale) -> torch.Tensor:
    """The linear layer, (..., C_in) -> (..., C_out), and what `kernel.linear` does after it."""
    return kernel.linear(hidden_states, *tensors_of(layer), *residual_and_scale)


def tensors_of(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias."""
    parameters = layer._parameters  # what `layer.weight` finds after a search
    return parameters["weight"], parameters["bias"]


def factor_of(scale: nn.Module) -> torch.Tensor | None:
    """What a LayerScale multiplies by; `None` for an nn.Identity in its place."""
    return scale.scale if type(scale) is LayerScale else None
