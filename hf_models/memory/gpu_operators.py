"""What operators do on a GPU, for tensors that have only shapes: PyTorch does not do it there."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

PRODUCTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
# PyTorch's lists ("Autocast Op Reference", ATen/autocast_mode.h), as far as networks here and their losses call them
LOWERED = {
    F.conv2d,
    F.conv_transpose2d,
    F.linear,
    F.scaled_dot_product_attention,
    torch.addmm,
    torch.baddbmm,
    torch.bmm,
    torch.einsum,
    torch.matmul,
    torch.mm,
    torch.Tensor.__matmul__,
    torch.Tensor.bmm,
    torch.Tensor.matmul,
}
WIDENED = {
    F.cross_entropy,
    F.group_norm,
    F.interpolate,
    F.layer_norm,
    F.log_softmax,
    F.softmax,
    torch.exp,
    torch.linalg.vector_norm,
    torch.norm,
    torch.softmax,
    torch.Tensor.exp,
    torch.Tensor.norm,
    torch.Tensor.softmax,
    torch.Tensor.sum,
}


class GpuOperators(TorchFunctionMode):
    """While it is entered, attention is fused, and operators get their tensors in the types that autocast gives them.

    Autocast copies the weights of products once in each forward pass and keeps the copies; here they are made first.

    Args:
        model: The model that is to run.
        autocast: bfloat16 or float16 if the model is in float32 and `torch.autocast("cuda")` is to be entered.
    """

    def __init__(self, model: nn.Module, autocast: torch.dtype | None = None):
        super().__init__()
        self.autocast = autocast
        self.copies: dict[torch.Tensor, torch.Tensor] = {}
        if autocast:
            layers = [module for module in model.modules() if isinstance(module, PRODUCTS)]
            self.copies = {
                weight: weight.to(autocast) for layer in layers for weight in layer.parameters(recurse=False)
            }

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if self.autocast and function in LOWERED:
            args, kwargs = tree_map_only(torch.Tensor, self._lowered, (args, kwargs))
        elif self.autocast and function in WIDENED:
            args, kwargs = tree_map_only(torch.Tensor, self._widened, (args, kwargs))
        if function is F.scaled_dot_product_attention:
            return _fused_attention(*args, **kwargs)
        return function(*args, **kwargs)

    def _lowered(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor in self.copies:
            return self.copies[tensor]
        return tensor.to(self.autocast) if tensor.dtype == torch.float32 else tensor

    def _widened(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.float() if tensor.dtype == self.autocast else tensor


def _fused_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Keeps what all fused attentions keep: its inputs, its output (N, heads, L, D), and a number for each row."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, is_causal=is_causal, attn_mask=attn_mask, scale=scale
    )[0]
