// Storage and arithmetic types, and how memory is walked. Plain data: nothing here has code of its own.
#pragma once

#include <cstdint>

namespace deformable_conv {

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

// Element strides of an offset or weight tensor; its points are contiguous.
struct PointStrides {
  int64_t image, row, column, group;
};

}  // namespace deformable_conv
