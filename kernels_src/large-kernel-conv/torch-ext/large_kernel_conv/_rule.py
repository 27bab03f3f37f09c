"""Which convolutions the kernel computes; for the others PyTorch's own (oneDNN's) is faster.

Nothing is measured at run time. The rule was read from benchmarks/sweep.py, on one thread of a Zen 4 processor, in
float32 and bfloat16:

- With few taps the time goes into moving pixels, and oneDNN moves them once less. In channels-last memory the kernel
  is faster from 9x9 on in float32 and from 11x11 on in half precision.
- In (N, C, H, W) memory oneDNN is slower, but on small images: there the kernel is faster from 9x9 on in float32 and
  from 7x7 on in half precision, below 14x14 pixels from 13x13 and 11x11 on.
- With less than 16 channels oneDNN is slower still: in channels-last memory the kernel is faster from 11x11 on, in the
  other from 3x3 on.
- In float64 PyTorch has no fast convolution of the kind.

On a GPU nothing has been measured yet: the same rule holds there, up to the largest kernel that the GPU's takes.
"""

from __future__ import annotations

import torch

LARGEST_ON_GPU = 51


def kernel_is_faster(input: torch.Tensor, channels: int, height: int, width: int) -> bool:
    """Whether the kernel is to convolve `input` (N, C, H, W) with `channels` kernels of `height` x `width`."""
    taps, dtype = height * width, input.dtype
    if input.is_cuda and max(height, width) > LARGEST_ON_GPU:
        return False
    if dtype == torch.float64:
        return True
    if taps < 7 * 7 and (channels >= 16 or input.stride(1) == 1):  # the shortest calls, in which the rest would show
        return False
    channels_last = input.stride(1) == 1
    if channels < 16:
        return taps >= (11 * 11 if channels_last else 3 * 3)
    # the size is asked for last: torch.compile compiles again for each answer
    if dtype == torch.float32:
        return taps >= (13 * 13 if not channels_last and _is_small(input) else 9 * 9)
    return taps >= (11 * 11 if channels_last or _is_small(input) else 7 * 7)


def _is_small(input: torch.Tensor) -> bool:
    return input.shape[2] * input.shape[3] < 14 * 14
