"""1x1 convolutions with the norms, activations and sums around them, in one pass of a compiled kernel.

In channels-last memory a 1x1 convolution is a linear layer. What comes right before and after it is computed while
the kernel has the numbers in registers anyway (see `hf-models kernels status`). Where somebody would notice, or there
is no kernel, the modules run.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from .execution import are_plain, is_untouched
from .hub_kernels import get_function
from .layers import only_numbers

_DTYPES = (torch.float32, torch.bfloat16)


def pointwise_kernel(*tensors: torch.Tensor | None) -> Callable | None:
    """The compiled product for these tensors, the first of them a map in channels-last memory.

    `None` where it is not to run: more than numbers is wanted, oneDNN is faster here, or there is no kernel.
    """
    hidden_states = tensors[0]
    dtype = hidden_states.dtype
    if not (
        only_numbers(dtype)
        and dtype in _DTYPES
        and are_plain(*tensors)
        and all(tensor is None or (tensor.is_cpu and tensor.dtype == dtype) for tensor in tensors)
        and hidden_states.stride(1) == 1  # in another layout the product would begin with a copy
        and hidden_states.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    ):
        return None
    return get_function("fused-layers", "pointwise_conv", "cpu", *tensors) if _has_faster_kernel(dtype) else None


@torch.compiler.assume_constant_result
def _has_faster_kernel(dtype: torch.dtype) -> bool:
    multiplies_fast = get_function("fused-layers", "multiplies_fast", "cpu")
    return multiplies_fast is not None and multiplies_fast(dtype)


def merging_kernel(*weights: torch.Tensor) -> Callable | None:
    """The compiled function that merges depthwise kernels and their BatchNorms, if there is one."""
    return get_function("fused-layers", "merge_norms_and_kernels", "cpu", *weights)


def activation_name(activation: nn.Module) -> str | None:
    """What the kernel calls an activation; `None` for one that it does not have, or that is not what it seems."""
    if is_untouched(activation, nn.Identity):
        return "none"
    if is_untouched(activation, nn.ReLU):
        return "relu"
    if is_untouched(activation, GELUActivation) and activation.act is F.gelu:
        return "gelu"
    return None
