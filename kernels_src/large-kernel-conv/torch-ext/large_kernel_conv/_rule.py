"""Which convolutions the kernel computes; for the others PyTorch's own (oneDNN's) is faster.

Nothing is measured at run time. The rule was read from benchmarks/sweep.py on one thread of a Zen 4 processor, where
it leaves no shape at less than 0.95 of the speed of F.conv2d:

- With few taps the time goes into moving pixels, and oneDNN moves them once less. From 11x11 on the kernel is faster
  in both layouts and all types, in float32 from 9x9 on where the input is channels-last.
- It computes 16 channels at a time. Where half of them or more would be missing it needs more taps to win: 15x15.
- In float64 PyTorch has no fast convolution of either kind.

On a GPU nothing has been measured yet: the same rule holds there, up to the largest kernel that the GPU's takes.
"""

from __future__ import annotations

import torch

LARGEST_ON_GPU = 51


def kernel_is_faster(dtype: torch.dtype, channels: int, taps: int) -> bool:
    """Whether the kernel is to compute a convolution with KH * KW = `taps`."""
    if dtype == torch.float64:
        return True
    if channels < 16:
        return taps >= 15 * 15
    if dtype == torch.float32 and channels >= 32:
        return taps >= 9 * 9
    return taps >= 11 * 11
