"""Benchmarks for `kernels benchmark` (it needs `tabulate`): the operators beside the same in PyTorch.

    kernels benchmark FOLDER [--iterations 20 --warmup 2]

FOLDER is this kernel's folder with a build in it, or the kernel's id on the Hub with its version (ID@v1). The command
knows no implementation but the kernel and its reference, and times one after the other: `hf-models benchmark ops`
compares more of them, interleaved. Its results are what the card shows.
"""

from functools import partialmethod

import torch
from kernels.benchmark import Benchmark
from torch.nn import functional as F

LEVELS = [(100, 136), (50, 68), (25, 34), (13, 17)]  # an image of 800 x 1088 at strides of 8 to 64
QUERIES = {"encoder": sum(height * width for height, width in LEVELS), "decoder": 900}
MAPS = {"P2": (200, 272, 4), "P3": (100, 136, 8), "P4": (50, 68, 16), "P5": (25, 34, 32)}  # height, width, stride


def grid_sample_attention(value, locations, weights):
    """Deformable attention by `grid_sample`, a level after the other."""
    batch, _, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    samples = []
    maps = value.split([height * width for height, width in LEVELS], dim=1)
    for (height, width), level, location in zip(LEVELS, maps, locations.unbind(dim=3), strict=True):
        # (N, H W, heads, channels) -> (N heads, channels, H, W)
        images = level.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        grid = (2 * location - 1).transpose(1, 2).reshape(batch * heads, queries, points, 2)
        samples.append(F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    summed = (torch.cat(samples, dim=-1) * weights).sum(dim=-1)  # (N heads, channels, Q)
    return summed.view(batch, heads * channels, queries).transpose(1, 2)


def shares(first_edge, last_edge, bins, pixels):
    """The share (bins, pixels) that each pixel of an axis has of each bin of a region."""
    samples = max(int(torch.ceil((last_edge - first_edge) / bins)), 1)
    place = (torch.arange(bins * samples, device=first_edge.device) + 0.5) / samples
    position = first_edge + place * (last_edge - first_edge) / bins
    inside = (position >= -1) & (position <= pixels)
    distance = position.clamp(0, pixels - 1)[:, None] - torch.arange(pixels, device=first_edge.device)
    return ((1 - distance.abs()).clamp(min=0) * inside[:, None]).view(bins, samples, pixels).mean(dim=1)


def matrix_roi_align(features, rois, output_size, scale):
    """RoIAlign of one image's regions as products of matrices."""
    _, _, height, width = features.shape
    edges = rois[:, 1:] * scale - 0.5
    pooled = []
    for left, top, right, bottom in edges.unbind(dim=0):
        down, across = shares(top, bottom, output_size, height), shares(left, right, output_size, width)
        pooled.append(down @ features[0] @ across.T)  # (bins, H) x (C, H, W) x (W, bins)
    return torch.stack(pooled)


def loop_nms(boxes, scores, iou_threshold):
    """A box after the other, each against all that are left."""
    order, kept = scores.argsort(descending=True, stable=True), []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        sides = boxes[best, 2:].minimum(boxes[order, 2:]) - boxes[best, :2].maximum(boxes[order, :2])
        intersection = sides.clamp(min=0).prod(dim=1)
        order = order[intersection / (areas[best] + areas[order] - intersection) <= iou_threshold]
    return torch.stack(kept)


def for_each(names):
    """Give a class the methods that the command looks for: setup_NAME, benchmark_NAME and verify_NAME."""

    def decorate(benchmark):
        for name in names:
            setattr(benchmark, f"setup_{name}", partialmethod(benchmark.prepare, name))
            setattr(benchmark, f"benchmark_{name}", benchmark.run)
            setattr(benchmark, f"verify_{name}", benchmark.reference)
        return benchmark

    return decorate


@for_each(QUERIES)
class DeformableAttention(Benchmark):
    """256 channels in 8 heads, 4 points a level."""

    seed = 0

    def prepare(self, name):
        samples = (1, QUERIES[name], 8, len(LEVELS), 4)
        weights = torch.randn(samples, device=self.device).flatten(3).softmax(-1).view(samples)
        value = torch.randn(1, QUERIES["encoder"], 8, 32, device=self.device)
        self.inputs = value, torch.rand(*samples, 2, device=self.device), weights

    def run(self):
        self.out = self.kernel.multi_scale_deformable_attention(*self.inputs, spatial_shapes=LEVELS)

    def reference(self):
        return grid_sample_attention(*self.inputs)


@for_each(MAPS)
class RoiAlign(Benchmark):
    """100 regions of 7 x 7 bins, 256 channels."""

    seed = 0

    def prepare(self, name):
        height, width, self.stride = MAPS[name]
        size = torch.tensor([width, height], device=self.device) * self.stride
        sides = (torch.rand(100, 2, device=self.device) * 14 + 14) * self.stride
        corner = torch.rand(100, 2, device=self.device) * (size - sides).clamp(min=0)
        self.features = torch.randn(1, 256, height, width, device=self.device)
        self.rois = torch.cat((torch.zeros_like(corner[:, :1]), corner, corner + sides), dim=1)

    def run(self):
        self.out = self.kernel.roi_align(self.features, self.rois, 7, 1 / self.stride)

    def reference(self):
        return matrix_roi_align(self.features, self.rois, 7, 1 / self.stride)


@for_each(["boxes1000", "boxes5000"])
class NonMaximumSuppression(Benchmark):
    seed = 0

    def prepare(self, name):
        count = int(name.removeprefix("boxes"))
        corner = torch.rand(count, 2, device=self.device) * 800
        self.boxes = torch.cat((corner, corner + torch.rand(count, 2, device=self.device) * 100), dim=1)
        self.scores = torch.rand(count, device=self.device)

    def run(self):
        self.out = self.kernel.nms(self.boxes, self.scores, 0.7)

    def reference(self):
        return loop_nms(self.boxes, self.scores, 0.7)
