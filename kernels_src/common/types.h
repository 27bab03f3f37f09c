// The number types of tensors, and those that are computed in. Plain data without code of its own: files that are
// compiled with different instruction sets include this one, and the linker must never pick an AVX-512 copy of a shared
// inline function for a machine without AVX-512.
#pragma once

#include <cstdint>

namespace common {

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

}  // namespace common

// Expands MACRO for each type of numbers in tensors, for explicit instantiations.
#define FOR_EACH_TYPE(MACRO) MACRO(float) MACRO(double) MACRO(BFloat16) MACRO(Half)
