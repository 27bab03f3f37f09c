"""A whole layer of InternImage or FlashInternImage, of compiled kernels alone.

Each product also does what follows it while its sums are in the cache: the activation, or the scale and the sum with
what the branch branched from. All modules are looked at once, because at batch size 1 to ask for each of them takes a
tenth of the time.
"""

from functools import partial
from types import ModuleType

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from .execution import are_untouched
from .kernel_layers import factor_of, multiply, normalize, tensors_of
from .layers import DropPath, LayerScale, product_kernel

_KINDS = frozenset((nn.Linear, nn.Conv2d, nn.LayerNorm, nn.Identity, GELUActivation, DropPath, LayerScale))


def block_kernel(
    layer: nn.Module, kinds: tuple[type[nn.Module], ...], hidden_states: torch.Tensor
) -> ModuleType | None:
    """The kernel for [`compute_block`], if it may compute this layer and is faster than oneDNN on this processor.

    Args:
        layer: Has the modules that [`compute_block`] reads.
        kinds: The classes of those that are neither PyTorch's nor of `layers`.
        hidden_states: What the layer is called with.
    """
    kernel = product_kernel(hidden_states)
    if kernel and _fits(layer) and are_untouched(layer._modules.values(), _KINDS.union(kinds), hidden_states):
        return kernel
    return None


def compute_block(kernel: ModuleType, layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`x + scale1 dcn(norm1(x))`, and of that, y, `y + scale2 mlp(norm2(y))`.

    Args:
        kernel: From [`block_kernel`].
        layer: Has norm1, dcn, layer_scale1, norm2, mlp and layer_scale2.
        hidden_states: (N, H, W, C).

    Returns:
        (N, H, W, C).
    """
    dcn, mlp = layer.dcn, layer.mlp
    normalized = normalize(kernel, layer.norm1, hidden_states)
    aggregated = dcn.aggregate(normalized, partial(_multiply, kernel))
    hidden_states = multiply(kernel, dcn.output_proj, aggregated, hidden_states, factor_of(layer.layer_scale1))
    normalized = normalize(kernel, layer.norm2, hidden_states)
    weights = *tensors_of(mlp.fc1), *tensors_of(mlp.fc2)
    return kernel.feed_forward(normalized, *weights, hidden_states, factor_of(layer.layer_scale2))


def _multiply(kernel: ModuleType, layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    return multiply(kernel, layer, hidden_states) if type(layer) is nn.Linear else layer(hidden_states)


def _fits(layer: nn.Module) -> bool:
    """Whether the modules are those of a new layer; tools may have put others in their place."""
    dcn, mlp, drop_path = layer.dcn, layer.mlp, layer.drop_path
    return (
        all(type(norm) is nn.LayerNorm and norm.bias is not None for norm in (layer.norm1, layer.norm2))
        and type(dcn.output_proj) is type(mlp.fc1) is type(mlp.fc2) is nn.Linear
        and type(mlp.activation) is GELUActivation
        and mlp.activation.act is F.gelu
        and type(drop_path) is DropPath
        and (drop_path.rate == 0 or not drop_path.training)
    )
