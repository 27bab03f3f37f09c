"""The public function, and what PyTorch must know of the operator: shapes, and that it has no gradient."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

from ._ops import add_op_namespace_prefix, ops


def conv3x3(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, relu: bool = False
) -> torch.Tensor:
    """`F.conv2d(input, weight, bias, padding=1)` in float32, to about its precision.

    Args:
        input: (N, C, H, W); read without a copy where it is channels-last.
        weight: (O, C, 3, 3).
        bias: (O).
        relu: Whether negative results become 0.

    Returns:
        (N, O, H, W), channels-last.

    Raises:
        RuntimeError: A shape does not fit, or a tensor is not float32.
        NotImplementedError: A derivative is asked for.
    """
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (input, weight, bias)):
        raise NotImplementedError("conv3x3: the compiled kernel has no gradient; call it in torch.no_grad()")
    if forward_ad._current_level >= 0:  # PyTorch would take the forward derivative of the operator for zero
        raise NotImplementedError("conv3x3: the compiled kernel has no forward-mode derivatives (jvp)")
    # (N, C, H, W) -> (N, H, W, C), and (N, H, W, O) -> (N, O, H, W)
    return ops.conv3x3(input.permute(0, 2, 3, 1), weight, bias, relu).permute(0, 3, 1, 2)


def cpu_path() -> str:
    """The instruction set that the operator runs with on this processor: avx512, avx2 or portable.

    The environment variable `WINOGRAD_CONV_CPU_PATH` chooses a lesser one, for tests.
    """
    return ops.cpu_path()


@torch.library.register_fake(add_op_namespace_prefix("conv3x3"))
def _fake(input, weight, bias, relu):
    return input.new_empty((*input.shape[:3], weight.shape[0]))
