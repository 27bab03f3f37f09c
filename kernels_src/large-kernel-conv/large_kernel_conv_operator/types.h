// How the memory of the operator's tensors is walked, and their sizes.
#pragma once

#include "common/types.h"

namespace large_kernel_conv {

using namespace common;

// A tensor (N, C, H, W) of any layout: element strides. A weight (C, 1, KH, KW) has no images.
template <typename T>
struct View {
  T* data;
  int64_t image, channel, row, column;
};

struct Geometry {
  int64_t batch, channels, height, width;
  int64_t kernel_height, kernel_width;  // both odd
};

}  // namespace large_kernel_conv
