"""Residual branches that end in a product, which adds itself to what they branched from.

Where nothing but numbers is wanted, and the modules are what they seem, the compiled kernel's product also does what
follows it, while its sums are in the cache. Else the modules run.
"""

from __future__ import annotations

import torch
from torch import nn

from .execution import is_untouched
from .fused_layers import add_branch, add_branch_and_norm, is_gelu, keeps_all, layer_norm
from .int8_linear import feed_forward
from .layers import LayerScale, is_for_products, linear, product_kernel


def add_linear(
    residual: torch.Tensor, scale: torch.Tensor | None, layer: nn.Module, hidden_states: torch.Tensor
) -> torch.Tensor:
    """`residual + layer(hidden_states) * scale`.

    Args:
        residual: (..., C_out).
        scale: (C_out), or `None` for 1.
        layer: An nn.Linear, or what a tool put in its place.
        hidden_states: (..., C_in).
    """
    if is_untouched(layer, nn.Linear) and is_for_products(hidden_states, layer.weight):
        if kernel := product_kernel("linear", hidden_states.dtype):
            return kernel(hidden_states, layer.weight, layer.bias, residual, scale)
    return _add(residual, scale, linear(layer, hidden_states))


def add_feed_forward(
    residual: torch.Tensor,
    scale: torch.Tensor | None,
    expansion: nn.Module,
    activation: nn.Module,
    projection: nn.Module,
    hidden_states: torch.Tensor,
) -> torch.Tensor:
    """`residual + projection(activation(expansion(hidden_states))) * scale`, arguments as in [`add_linear`].

    The kernel keeps of what lies between only some rows at a time.
    """
    layers = expansion, projection
    if (
        all(is_untouched(layer, nn.Linear) and is_for_products(hidden_states, layer.weight) for layer in layers)
        and is_gelu(activation)
        and (kernel := product_kernel("feed_forward", hidden_states.dtype))
    ):
        weights = (tensor for layer in layers for tensor in (layer.weight, layer.bias))
        return kernel(hidden_states, *weights, residual, scale)
    return _add(residual, scale, feed_forward(expansion, activation, projection, hidden_states))


def add_output(
    hidden_states: torch.Tensor, inputs: torch.Tensor, module: nn.Module, scale: nn.Module, drop_path: nn.Module
) -> torch.Tensor:
    """`hidden_states + drop_path(scale(module(inputs)))`.

    Args:
        hidden_states: (..., C).
        inputs: Of the module.
        module: Returns (..., C), and has a method `add_to(residual, scale, inputs)` for the sum; or what stands in its
            place.
        scale, drop_path: As in [`add_branch`].
    """
    if _adds_itself(module, hidden_states, scale, drop_path):
        return module.add_to(hidden_states, _factor(scale), inputs)
    return add_branch(hidden_states, module(inputs), scale, drop_path)


def add_output_and_norm(
    hidden_states: torch.Tensor,
    inputs: torch.Tensor,
    module: nn.Module,
    scale: nn.Module,
    drop_path: nn.Module,
    norm: nn.Module,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of [`add_output`], and its norm."""
    if _adds_itself(module, hidden_states, scale, drop_path):
        hidden_states = module.add_to(hidden_states, _factor(scale), inputs)
        return hidden_states, layer_norm(norm, hidden_states)
    return add_branch_and_norm(hidden_states, module(inputs), scale, drop_path, norm)


def _adds_itself(module: nn.Module, hidden_states: torch.Tensor, scale: nn.Module, drop_path: nn.Module) -> bool:
    kind = type(module)
    return (
        {"forward", "add_to"} <= vars(kind).keys()  # not of a subclass, whose `forward` may be another
        and product_kernel("linear", hidden_states.dtype) is not None
        and is_untouched(module, kind)
        and (is_untouched(scale, LayerScale) or is_untouched(scale, nn.Identity))
        and keeps_all(drop_path)
    )


def _factor(scale: nn.Module) -> torch.Tensor | None:
    return scale.scale if type(scale) is LayerScale else None


def _add(residual: torch.Tensor, scale: torch.Tensor | None, branch: torch.Tensor) -> torch.Tensor:
    return residual + branch if scale is None else torch.addcmul(residual, branch, scale)
