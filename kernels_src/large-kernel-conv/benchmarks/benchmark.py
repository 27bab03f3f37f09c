"""Benchmarks for `kernels benchmark` (it needs `tabulate`): the convolution beside F.conv2d in channels-last memory.

    kernels benchmark FOLDER [--iterations 20 --warmup 2]

FOLDER is this kernel's folder with a build in it, or the kernel's id on the Hub with its version (ID@v1). The command
times one implementation after the other; sweep.py interleaves them, over many more shapes.
"""

from functools import partialmethod

import torch
from kernels.benchmark import Benchmark
from torch.nn import functional as F

SHAPES = {  # images, channels, height and width, kernel size: the stages of RepLKNet-31B at 224 pixels
    f"{size}x{kernel_size}_{batch}": (batch, channels, size, kernel_size)
    for channels, size, kernel_size in ((128, 56, 31), (256, 28, 29), (512, 14, 27), (1024, 7, 13))
    for batch in (1, 8)
}


def make_inputs(shape, device, dtype=torch.float32):
    batch, channels, size, kernel_size = shape
    input = torch.randn(batch, channels, size, size, device=device).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, kernel_size, kernel_size, device=device) / kernel_size
    return input, weight.to(dtype), torch.randn(channels, device=device).to(dtype)


def pytorch(input, weight, bias):
    return F.conv2d(input, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])


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
    dtype = torch.float32

    def prepare(self, shape):
        self.inputs = make_inputs(shape, self.device, self.dtype)

    def run(self):
        self.out = self.kernel.depthwise_conv2d(*self.inputs)

    def reference(self):
        return pytorch(*self.inputs)


@for_each_shape
class ForwardBFloat16(Forward):
    dtype = torch.bfloat16


@for_each_shape
class Backward(Benchmark):
    """The gradients of all three inputs; the forward passes before it are not timed."""

    seed = 0

    def prepare(self, shape):
        self.inputs = [tensor.requires_grad_() for tensor in make_inputs(shape, self.device)]
        self.ours, self.expected = self.kernel.depthwise_conv2d(*self.inputs), pytorch(*self.inputs)
        self.grad_output = torch.randn_like(self.expected) / shape[2]

    def run(self):
        self.gradients = torch.autograd.grad(self.ours, self.inputs, self.grad_output, retain_graph=True)

    def reference(self):
        self.out = torch.cat([gradient.flatten() for gradient in self.gradients])  # the command compares one tensor
        expected = torch.autograd.grad(self.expected, self.inputs, self.grad_output, retain_graph=True)
        return torch.cat([gradient.flatten() for gradient in expected])
