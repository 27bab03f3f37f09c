// Storage and arithmetic types, and how memory is walked. Plain data: nothing here has code of its own, so that the
// linker can never pick an AVX-512 copy of a shared inline function for a machine without AVX-512.
#pragma once

#include <cstdint>

namespace large_kernel_conv {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// Arithmetic is in float32, in float64 for float64.
template <typename T>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <typename T>
using Compute = typename ComputeType<T>::type;

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
