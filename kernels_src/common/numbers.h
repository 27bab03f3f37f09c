// Numbers of tensors to and from those that are computed with, one at a time; rounding is to nearest even.
#pragma once

#include <cstdint>
#include <cstring>

#include "types.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace common::CPU_PATH {

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

}  // namespace common::CPU_PATH
