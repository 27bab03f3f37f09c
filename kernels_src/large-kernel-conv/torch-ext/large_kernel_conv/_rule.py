"""Which convolutions the kernel computes; for the others PyTorch's own (oneDNN's) is faster.

Nothing is measured at run time. The rule was read from benchmarks/sweep.py, on one thread of a Zen 4 processor, in
float32 and bfloat16:

- With few taps the time goes into moving pixels, and oneDNN moves them once less. The kernel is faster in float32 from
  9x9 on in channels-last memory and from 13x13 on in the other, in half precision from 11x11 on in both.
- It computes 16 channels at a time. With fewer it needs more taps to win: 15x15.
- In float64 PyTorch has no fast convolution of the kind.

On a GPU nothing has been measured yet: the same rule holds there, up to the largest kernel that the GPU's takes.
"""

from __future__ import annotations

import torch

LARGEST_ON_GPU = 51


def kernel_is_faster(input: torch.Tensor, channels: int, height: int, width: int) -> bool:
    """Whether the kernel is to convolve `input` (N, C, H, W) with `channels` kernels of `height` x `width`."""
    taps = height * width
    if input.is_cuda and max(height, width) > LARGEST_ON_GPU:
        return False
    if input.dtype == torch.float64:
        return True
    if channels < 16:
        return taps >= 15 * 15
    if input.dtype == torch.float32:
        return taps >= (9 * 9 if input.stride(1) == 1 else 13 * 13)
    return taps >= 11 * 11
