// A vector of N numbers, one for each channel of a block, and the number types in memory.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "problem.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace large_kernel_conv::LARGE_KERNEL_CONV_PATH {

ALWAYS_INLINE float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
ALWAYS_INLINE uint32_t as_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

ALWAYS_INLINE float widen(float value) { return value; }
ALWAYS_INLINE double widen(double value) { return value; }
ALWAYS_INLINE float widen(BFloat16 value) { return as_float(uint32_t(value.bits) << 16); }
ALWAYS_INLINE float widen(Half value) {
  // The exponent moves by multiplication, which is exact for subnormal numbers too; infinity and NaN are set apart.
  const uint32_t sign = uint32_t(value.bits & 0x8000) << 16, rest = uint32_t(value.bits & 0x7fff) << 13;
  const float magnitude = rest >= 0x0f800000 ? as_float(rest + 0x70000000) : as_float(rest) * 0x1p112f;
  return as_float(as_bits(magnitude) | sign);
}

ALWAYS_INLINE void narrow(float value, float& out) { out = value; }
ALWAYS_INLINE void narrow(double value, double& out) { out = value; }
ALWAYS_INLINE void narrow(float value, BFloat16& out) {
  const uint32_t bits = as_bits(value);
  out.bits = value != value ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
ALWAYS_INLINE void narrow(float value, Half& out) {
  const uint32_t bits = as_bits(value), sign = (bits >> 16) & 0x8000, rest = bits & 0x7fffffff;
  uint32_t half;
  if (value != value) {
    half = 0x7e00;
  } else if (rest >= 0x477ff000) {  // 65520 and above round to infinity
    half = 0x7c00;
  } else if (rest < 0x38800000) {  // subnormal: the addition rounds to multiples of 2^-24
    half = as_bits(as_float(rest) + 0.5f) - 0x3f000000;
  } else {
    half = (rest - 0x38000000 + 0xfff + ((rest >> 13) & 1)) >> 13;
  }
  out.bits = uint16_t(half | sign);
}

// The view of one channel, or of the channels from one on, in one image
template <typename T>
ALWAYS_INLINE View<T> at(View<T> view, int64_t image, int64_t channel) {
  view.data += image * view.image + channel * view.channel;
  return view;
}

// kRows x kColumns is the largest tile of outputs that the registers hold beside the factors, of one tap each.
template <typename A, int N, int kRows_, int kColumns_>
struct Lanes {
  static constexpr int size = N, kRows = kRows_, kColumns = kColumns_, kTaps = 1;
  static constexpr bool kFiniteOnly = false;
  using Scalar = A;
  using Element = A;  // of a factor
  using Factor = Lanes;
  typedef A Vector __attribute__((vector_size(N * sizeof(A)), may_alias));
  Vector v;

  static ALWAYS_INLINE Lanes zero() { return {Vector{}}; }
  static ALWAYS_INLINE Lanes load(const A* p) { return {*reinterpret_cast<const Vector*>(p)}; }  // p is aligned
  ALWAYS_INLINE void store(A* p) const { *reinterpret_cast<Vector*>(p) = v; }
  ALWAYS_INLINE void add(Lanes a) { v += a.v; }
  ALWAYS_INLINE void add_product(Lanes a, Lanes b) { v += a.v * b.v; }  // fused where the processor can
};

// Aligned memory that grows to what is asked for and keeps nothing.
template <typename A>
class Buffer {
 public:
  A* at_least(int64_t size) {
    if (size > size_) {
      memory_.reset();
      const size_t bytes = (size * sizeof(A) + kAlignment - 1) / kAlignment * kAlignment;
      memory_.reset(static_cast<A*>(std::aligned_alloc(kAlignment, bytes)));
      if (!memory_) throw std::bad_alloc();
      size_ = size;
    }
    return memory_.get();
  }

 private:
  static constexpr size_t kAlignment = 64;
  struct Free {
    void operator()(A* p) const { std::free(p); }
  };
  std::unique_ptr<A, Free> memory_;
  int64_t size_ = 0;
};

}  // namespace large_kernel_conv::LARGE_KERNEL_CONV_PATH
