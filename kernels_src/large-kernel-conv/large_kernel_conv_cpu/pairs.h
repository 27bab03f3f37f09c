// Two neighbouring bfloat16 of a row in one factor, for the instruction that adds both their products to a float32.
//
// An image becomes the pairs (pixel x - 1, pixel x) at every x from 0 to its width, a kernel the pairs of taps
// (2b, 2b + 1); what lies outside is zero. Both must be finite, as zero times infinity is NaN.
#pragma once

#include <immintrin.h>

#include "pack.h"

namespace large_kernel_conv::CPU_PATH {

struct PairLanes {
  static constexpr int size = 16, kRows = 3, kColumns = 8, kTaps = 2;
  static constexpr bool kFiniteOnly = true;
  using Scalar = float;
  using Element = uint32_t;  // the left number in the low half
  using Factor = ChannelLanes<uint32_t, size, kRows, kColumns>;
  __m512 v;

  static ALWAYS_INLINE PairLanes zero() { return {_mm512_setzero_ps()}; }
  static ALWAYS_INLINE PairLanes load(const float* p) { return {_mm512_load_ps(p)}; }
  ALWAYS_INLINE void store(float* p) const { _mm512_store_ps(p, v); }
  ALWAYS_INLINE void add(PairLanes a) { v = _mm512_add_ps(v, a.v); }
  ALWAYS_INLINE void add_product(Factor a, Factor b) { v = _mm512_dpbf16_ps(v, (__m512bh)a.v, (__m512bh)b.v); }
};

// Call f(pair of the columns 2q and 2q + 1) for the pairs of a row, in turn. Missing channels and columns are zero.
template <typename F>
ALWAYS_INLINE void for_pairs(const View<const BFloat16>& view, const BFloat16* row, int64_t channels, int64_t width,
                             F f) {
  constexpr int N = PairLanes::size;
  if (view.channel == 1 && channels == N) {
    const auto pixel = [&](int64_t x) {
      return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + x * view.column)));
    };
    for (int64_t x = 0; x + 1 < width; x += 2) f(_mm512_or_si512(pixel(x), _mm512_slli_epi32(pixel(x + 1), 16)));
    if (width % 2) f(pixel(width - 1));
    return;
  }
  alignas(64) uint32_t rows[N][N] = {}, pairs[N * N];
  for (int64_t start = 0; start < width; start += 2 * N) {
    const int64_t count = std::min<int64_t>(2 * N, width - start);
    for (int64_t c = 0; c < channels; ++c) {
      const BFloat16* numbers = row + c * view.channel + start * view.column;
      BFloat16 gathered[2 * N];
      if (view.column != 1) {
        for (int64_t x = 0; x < count; ++x) gathered[x] = numbers[x * view.column];
        numbers = gathered;
      }
      _mm512_store_si512(rows[c], _mm512_maskz_loadu_epi16(uint32_t((uint64_t(1) << count) - 1), numbers));
    }
    transpose<N>(rows[0], N, pairs, (count + 1) / 2);
    for (int64_t q = 0; q < (count + 1) / 2; ++q) f(_mm512_load_si512(pairs + q * N));
  }
}

ALWAYS_INLINE __mmask32 not_finite(__m512i pair) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  return _mm512_cmpeq_epi16_mask(_mm512_and_si512(pair, exponent), exponent);
}

// Rows [first, last) of an image; false where a number is not finite.
template <class V>
bool pack_image(const View<const BFloat16>& view, int64_t channels, int64_t first, int64_t last, int64_t width,
                uint32_t* out) {
  __mmask32 unusable = 0;
  for (int64_t r = first; r < last; ++r, out += (width + 1) * V::size) {
    __m512i left = _mm512_setzero_si512();
    uint32_t* next = out;
    for_pairs(view, view.data + r * view.row, channels, width, [&](__m512i pair) {
      unusable |= not_finite(pair);
      _mm512_store_si512(next, _mm512_or_si512(_mm512_srli_epi32(left, 16), _mm512_slli_epi32(pair, 16)));
      if (next + V::size <= out + width * V::size) _mm512_store_si512(next + V::size, pair);
      next += 2 * V::size;
      left = pair;
    });
    if (width % 2 == 0) _mm512_store_si512(next, _mm512_srli_epi32(left, 16));
  }
  return !unusable;
}

// Rows [first, last) of a kernel; false where a number is not finite.
template <class V>
bool pack_kernel(const View<const BFloat16>& view, int64_t channels, int64_t first, int64_t last, int64_t width,
                 uint32_t* out) {
  __mmask32 unusable = 0;
  for (int64_t r = first; r < last; ++r)
    for_pairs(view, view.data + r * view.row, channels, width, [&](__m512i pair) {
      unusable |= not_finite(pair);
      _mm512_store_si512(out, pair);
      out += V::size;
    });
  return !unusable;
}

}  // namespace large_kernel_conv::CPU_PATH
