"""RoIAlign over a pyramid of features, and what could be run instead of it."""

import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from hf_models.roi_align import roi_align, roi_align_reference

from .implementations import Implementation, Operator, Size

try:
    from torchvision.ops import roi_align as torchvision_roi_align
except (ImportError, RuntimeError):  # not installed, or built for another PyTorch
    torchvision_roi_align = None

IMAGE = (800, 1088)  # height and width
STRIDES = (4, 8, 16, 32)  # of P2 to P5
SHAPES = {  # images, regions, channels, bins of a side: the boxes and the masks of Mask R-CNN
    "boxes": (1, 1000, 256, 7),
    "masks": (1, 100, 256, 14),
}
# The loop of the usual operators, with their table of pixels and shares, in one thread
PLAIN_LOOP = r"""
#include <cmath>
#include <vector>
struct Sample { long pixel[4]; float share[4]; };
extern "C" void roi_align(const float* features, const float* rois, long count, long channels, long height, long width,
                          long bins, float scale, float* out) {
  for (long n = 0; n < count; ++n) {
    const float* roi = rois + 5 * n;
    const float left = roi[1] * scale - 0.5f, top = roi[2] * scale - 0.5f;
    const float bin_width = (roi[3] * scale - 0.5f - left) / bins, bin_height = (roi[4] * scale - 0.5f - top) / bins;
    const long columns = std::ceil(bin_width), rows = std::ceil(bin_height);
    std::vector<Sample> samples;
    for (long bin = 0; bin < bins * bins; ++bin)
      for (long i = 0; i < rows; ++i)
        for (long j = 0; j < columns; ++j) {
          float y = top + bin / bins * bin_height + (i + 0.5f) * bin_height / rows;
          float x = left + bin % bins * bin_width + (j + 0.5f) * bin_width / columns;
          Sample sample = {};
          if (y >= -1 && y <= height && x >= -1 && x <= width) {
            y = std::fmin(std::fmax(y, 0.0f), height - 1.0f), x = std::fmin(std::fmax(x, 0.0f), width - 1.0f);
            const long y0 = y, x0 = x, y1 = y0 + (y0 + 1 < height), x1 = x0 + (x0 + 1 < width);
            const float dy = y - y0, dx = x - x0;
            sample = {{y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1},
                      {(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx}};
          }
          samples.push_back(sample);
        }
    const long of_bin = rows * columns;
    for (long c = 0; c < channels; ++c) {
      const float* map = features + (long(roi[0]) * channels + c) * height * width;
      for (long bin = 0; bin < bins * bins; ++bin) {
        float total = 0;
        for (long s = bin * of_bin; s < (bin + 1) * of_bin; ++s)
          for (int i = 0; i < 4; ++i) total += samples[s].share[i] * map[samples[s].pixel[i]];
        out[(n * channels + c) * bins * bins + bin] = total / (of_bin > 0 ? of_bin : 1);
      }
    }
  }
}
"""


def implementations(size: Size, dtype: torch.dtype, device: str) -> list[Implementation]:
    """Ours and the peers, on the same random features; ours on channels-last maps, which convolutions give here."""
    images, _, channels, _ = size
    maps = [
        torch.randn(images, channels, -(-IMAGE[0] // stride), -(-IMAGE[1] // stride), device=device).to(dtype)
        for stride in STRIDES
    ]
    channels_last = tuple(level.contiguous(memory_format=torch.channels_last) for level in maps)
    found = [
        Implementation("ours", _of_pyramid(roi_align, size), channels_last),
        Implementation("ours, NCHW", _of_pyramid(roi_align, size), tuple(maps)),
        Implementation("PyTorch reference", _of_pyramid(_reference, size), channels_last),
    ]
    if torchvision_roi_align is not None:
        found.append(Implementation("torchvision", _of_pyramid(_torchvision, size), tuple(maps)))
    if device == "cpu" and dtype == torch.float32:
        loop = _of_pyramid(_plain_loop, size)
        found.append(Implementation("plain C++ loop, 1 thread", loop, tuple(maps), has_gradient=False))
    return found


def _of_pyramid(function: Callable, size: Size) -> Callable[..., torch.Tensor]:
    """Pools each region from the level that suits its size, as feature pyramids do."""
    images, count, _, bins = size
    generator = torch.Generator().manual_seed(1)
    sides = 28 * 24 ** torch.rand(count, 2, generator=generator)  # 28 to 672 pixels
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor(IMAGE[::-1]) - sides).clamp(min=0)
    levels = (sides.prod(dim=1).sqrt() / 56).log2().floor().clamp(0, len(STRIDES) - 1)
    rois = torch.cat((torch.arange(count)[:, None] % images, corner, corner + sides), dim=1)

    def pool(*maps):
        parts = [
            function(level, rois[levels == i].to(level.device), bins, 1 / stride)
            for i, (level, stride) in enumerate(zip(maps, STRIDES, strict=True))
        ]
        return torch.cat(parts)

    return pool


def _reference(features, rois, bins, scale):
    return roi_align_reference(features.float(), rois, bins, scale).to(features.dtype)


def _torchvision(features, rois, bins, scale):
    return torchvision_roi_align(features, rois.to(features.dtype), (bins, bins), scale, -1, True)


def _plain_loop(features, rois, bins, scale):
    out = features.new_empty(len(rois), features.shape[1], bins, bins)
    numbers = map(ctypes.c_long, (len(rois), *features.shape[1:], bins))
    first, second, third = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (features, rois, out))
    _compiled_loop().roi_align(first, second, *numbers, ctypes.c_float(scale), third)
    return out


@functools.cache
def _compiled_loop() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "loop.cpp", Path(folder) / "loop.so"
        source.write_text(PLAIN_LOOP)
        command = [os.environ.get("CXX", "g++"), "-O3", "-shared", "-fPIC", source, "-o", library]
        subprocess.run(command, check=True, capture_output=True)
        return ctypes.CDLL(str(library))


ROI_ALIGN = Operator(
    kernel="detection-ops",
    shapes=SHAPES,
    size_format="{1} x {2} x {3} x {3}",
    size_title="regions x channels x bins",
    units=lambda size: size[1] * size[2] * size[3] ** 2 / 1e3,  # a thousand bins of a channel
    implementations=implementations,
    expected=lambda size: _of_pyramid(_reference, size),
    gradients=len(STRIDES),
)
