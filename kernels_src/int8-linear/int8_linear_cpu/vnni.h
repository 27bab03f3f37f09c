// What the paths for processors with VNNI share: they add products of 8-bit numbers four at a time.
#pragma once

#include "common/lanes_avx512.h"
#include "problem.h"

namespace int8_linear::CPU_PATH {

using namespace common::CPU_PATH;

using Vector = Floats16;
constexpr int kPanels = 4;  // with the rows of a tile, sums for 24 of the 32 registers

// Sixteen sums of products of unsigned and signed 8-bit numbers.
struct Sums {
  using Weights = __m512i;
  using Quad = __m512i;
  __m512i v;

  static ALWAYS_INLINE Weights weights(const int8_t* p) { return _mm512_loadu_si512(p); }
  static ALWAYS_INLINE Quad quad(const uint8_t* p) {
    int32_t four;
    memcpy(&four, p, sizeof(four));
    return _mm512_set1_epi32(four);
  }
  static ALWAYS_INLINE Sums start(const int8_t* weight_sums, int32_t zero_point) {
    return {_mm512_mullo_epi32(_mm512_loadu_si512(weight_sums), _mm512_set1_epi32(-zero_point))};
  }
  ALWAYS_INLINE void add(Quad input, Weights w) { v = _mm512_dpbusd_epi32(v, input, w); }
  ALWAYS_INLINE Vector numbers() const { return {_mm512_cvtepi32_ps(v)}; }
};

// Rounds numbers between 0 and 255 to the nearest, halves to even.
ALWAYS_INLINE void store_rounded(Vector v, uint8_t* p, int count) {
  const __mmask16 first = __mmask16(Vector::first(count));
  _mm_mask_storeu_epi8(p, first, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v.v)));
}

}  // namespace int8_linear::CPU_PATH
