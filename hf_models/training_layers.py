"""Layers with gradients, computed in less time than by PyTorch.

Where a gradient is to be differentiated again, or more than numbers is wanted of it, it is PyTorch's.
"""

import torch

from .execution import only_computes
from .hub_kernels import get_function


class TrainedLinear(torch.autograd.Function):
    """`F.linear` in float32 on a CPU by oneDNN, where PyTorch takes MKL.

    The gradient of the weight is a product that MKL computes as fast as anything.
    """

    @staticmethod
    def forward(ctx, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(..., C_in), (C_out, C_in) and (C_out) or `None` -> (..., C_out)."""
        ctx.save_for_backward(input, weight)
        return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        input, weight = ctx.saved_tensors
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            if only_computes() and not torch.is_autocast_enabled("cpu"):
                of_input = torch.ops.mkldnn._linear_pointwise(gradient, weight.t(), None, "none", [], "")
            else:
                of_input = gradient @ weight
        rows = gradient.reshape(-1, gradient.shape[-1])  # (..., C_out) -> (rows, C_out)
        if ctx.needs_input_grad[1]:
            of_weight = rows.t() @ input.reshape(-1, input.shape[-1])
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_input, of_weight, of_bias


class TrainedGelu(torch.autograd.Function):
    """`F.gelu` by the compiled kernel, on a CPU in any type but float64."""

    @staticmethod
    def forward(ctx, input: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        ctx.save_for_backward(input)
        return get_function("fused-layers", "gelu", "cpu", input)(input)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        (input,) = ctx.saved_tensors
        if only_computes() and (kernel := get_function("fused-layers", "gelu_backward", "cpu", gradient, input)):
            return kernel(gradient, input)
        return torch.ops.aten.gelu_backward(gradient, input)
