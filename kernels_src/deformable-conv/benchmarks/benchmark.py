"""Benchmarks for `kernels benchmark` (it needs `tabulate`): the operator beside the same written with `grid_sample`.

    kernels benchmark FOLDER [--iterations 20 --warmup 2]

FOLDER is this kernel's folder with a build in it, or the kernel's id on the Hub with its version (ID@v1). The command
knows no implementation but the kernel and its reference, and times one after the other: `hf-models benchmark ops`
compares more of them, interleaved, in other dtypes. Its results are what the card shows.
"""

from functools import partialmethod

import torch
from kernels.benchmark import Benchmark
from torch.nn import functional as F

SHAPES = {  # images, height, width, groups, channels of a group; kernel 3x3, stride 1, padding 1
    "seed56": (8, 56, 56, 4, 32),
    "seed28": (8, 28, 28, 8, 32),
    "seed14": (8, 14, 14, 16, 32),
    "seed7": (8, 7, 7, 32, 32),
    "T56": (8, 56, 56, 4, 16),
    "T28": (8, 28, 28, 8, 16),
    "T14": (8, 14, 14, 16, 16),
    "T7": (8, 7, 7, 32, 16),
    "iso14": (64, 14, 14, 24, 32),
    "hi200": (1, 200, 320, 4, 32),
    "hi128": (1, 128, 128, 4, 32),
}


def make_inputs(shape, device):
    """Value, offset, and weights before their softmax.

    Offsets keep away from whole numbers of pixels, where the gradient jumps.
    """
    points = (*shape[:4], 9)
    offset = torch.randn(*points, 2, device=device).floor() + 0.1 + 0.8 * torch.rand(*points, 2, device=device)
    return torch.randn(shape, device=device), offset, torch.randn(points, device=device)


def grid_sample_core(value, offset, weight):
    """The aggregation with `grid_sample`, in the steps of the published PyTorch cores."""
    batch, height, width, groups, channels = value.shape
    points = torch.arange(3.0, device=value.device) - 1
    column = torch.arange(float(width), device=value.device)[:, None, None]
    row = torch.arange(float(height), device=value.device)[:, None, None, None]
    x = column + points.repeat_interleave(3) + offset[..., 0]
    y = row + points.repeat(3) + offset[..., 1]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)  # (N, H, W, G, 9, 2)
    grid = grid.permute(0, 3, 1, 2, 4, 5).reshape(batch * groups, height * width, 9, 2)
    images = value.permute(0, 3, 4, 1, 2).reshape(batch * groups, channels, height, width)
    samples = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weights = weight.permute(0, 3, 1, 2, 4).reshape(batch * groups, 1, height * width, 9)
    summed = (samples * weights).sum(-1)  # (N G, D, H W)
    return summed.view(batch, groups * channels, height, width).permute(0, 2, 3, 1).contiguous()


def for_each_shape(benchmark):
    """Give a class the methods that the command looks for: setup_SHAPE, benchmark_SHAPE and verify_SHAPE."""
    for name, shape in SHAPES.items():
        setattr(benchmark, f"setup_{name}", partialmethod(benchmark.prepare, shape))
        setattr(benchmark, f"benchmark_{name}", benchmark.run)
        setattr(benchmark, f"verify_{name}", benchmark.reference)
    return benchmark


@for_each_shape
class Forward(Benchmark):
    seed = 0

    def prepare(self, shape):
        self.value, self.offset, logits = make_inputs(shape, self.device)
        self.weight = logits.softmax(-1)

    def run(self):
        self.out = self.kernel.deformable_aggregate(self.value, self.offset, self.weight, kernel_size=3, padding=1)

    def reference(self):
        return grid_sample_core(self.value, self.offset, self.weight)


@for_each_shape
class ForwardWithSoftmax(Benchmark):
    seed = 0

    def prepare(self, shape):
        self.inputs = make_inputs(shape, self.device)

    def run(self):
        self.out = self.kernel.deformable_aggregate(*self.inputs, kernel_size=3, padding=1, softmax=True)

    def reference(self):
        value, offset, logits = self.inputs
        return grid_sample_core(value, offset, logits.softmax(-1))


@for_each_shape
class Backward(Benchmark):
    """The gradients of all three inputs; the forward passes before it are not timed."""

    seed = 0

    def prepare(self, shape):
        self.inputs = [tensor.requires_grad_() for tensor in make_inputs(shape, self.device)]
        self.grad_output = torch.randn(*shape[:3], shape[3] * shape[4], device=self.device)
        self.ours = self.kernel.deformable_aggregate(*self.inputs, kernel_size=3, padding=1)
        self.expected = grid_sample_core(*self.inputs)

    def run(self):
        self.gradients = torch.autograd.grad(self.ours, self.inputs, self.grad_output, retain_graph=True)

    def reference(self):
        self.out = torch.cat([gradient.flatten() for gradient in self.gradients])  # the command compares one tensor
        expected = torch.autograd.grad(self.expected, self.inputs, self.grad_output, retain_graph=True)
        return torch.cat([gradient.flatten() for gradient in expected])
