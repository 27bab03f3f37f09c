"""A whole layer of SMT, of compiled kernels alone, as those of the other families in `fused_blocks`.

All modules are looked at once, because at batch size 1 to ask for each of them takes a tenth of the time.
"""

from types import ModuleType

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from .execution import are_untouched
from .fused_layers import is_depthwise
from .kernel_layers import factor_of, multiply, normalize, tensors_of
from .layers import DropPath, LayerScale, product_kernel

_KINDS = frozenset(
    (
        nn.BatchNorm2d,
        nn.Conv2d,
        nn.Dropout,
        nn.Identity,
        nn.LayerNorm,
        nn.Linear,
        nn.ModuleList,
        DropPath,
        GELUActivation,
        LayerScale,
    )
)


def layer_kernel(
    layer: nn.Module, kinds: tuple[type[nn.Module], ...], hidden_states: torch.Tensor
) -> ModuleType | None:
    """The kernel for [`compute_layer`], if it may compute this layer and is faster than oneDNN on this processor.

    Args:
        layer: Has the modules that [`compute_layer`] reads.
        kinds: The classes of those that are neither PyTorch's nor of `layers`.
        hidden_states: What the layer is called with.
    """
    kernel = product_kernel(hidden_states)
    if kernel and are_untouched(layer._modules.values(), _KINDS.union(kinds), hidden_states) and _fits(layer, kinds):
        return kernel
    return None


def compute_layer(kernel: ModuleType, layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`x + scale1 mixer(norm1(x))`, and of that, y, `y + scale2 mlp(norm2(y))`.

    Args:
        kernel: From [`layer_kernel`].
        layer: Has norm1, mixer, layer_scale1, norm2, mlp and layer_scale2.
        hidden_states: (N, H, W, C).

    Returns:
        (N, H, W, C).
    """
    mixer, mlp = layer.mixer, layer.mlp
    mixed = mixer.mix(kernel, normalize(kernel, layer.norm1, hidden_states))
    hidden_states = multiply(kernel, mixer.projection, mixed, hidden_states, factor_of(layer.layer_scale1))
    hidden = multiply(kernel, mlp.fc1, normalize(kernel, layer.norm2, hidden_states))
    hidden = kernel.add_depthwise_gelu(hidden, *tensors_of(mlp.depthwise_conv))
    return multiply(kernel, mlp.fc2, hidden, hidden_states, factor_of(layer.layer_scale2))


def _fits(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether the modules are those of a new layer in evaluation; tools may have put others in their place."""
    mixer, mlp, drop_path = layer.mixer, layer.mlp, layer.drop_path
    return (
        type(mixer) in kinds
        and type(mlp) in kinds
        and mixer.suits_kernel()
        and all(type(norm) is nn.LayerNorm and norm.bias is not None for norm in (layer.norm1, layer.norm2))
        and all(type(linear) is nn.Linear for linear in (mixer.projection, mlp.fc1, mlp.fc2))
        and is_depthwise(mlp.depthwise_conv, 3)
        and type(mlp.activation) is GELUActivation
        and mlp.activation.act is F.gelu
        and type(drop_path) is DropPath
        and (drop_path.rate == 0 or not drop_path.training)
        and all(dropout.p == 0 or not dropout.training for dropout in (mixer.dropout, mlp.dropout))
    )
