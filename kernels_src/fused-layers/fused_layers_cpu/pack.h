// Weights in the order in which a product reads them, and how it multiplies them.
#pragma once

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "normalize.h"

namespace fused_layers::CPU_PATH {

// The products of one instruction. `Unit` is what lies together of a column: a number, widened.
template <typename T>
struct Unit {
  using type = Compute<T>;
  using V = Vector<T>;
  static constexpr int depth = 1;
  static ALWAYS_INLINE V load(const type* p) { return V::load(p); }
  static ALWAYS_INLINE V splat(const T* p, int) { return V::splat(widen(*p)); }
  static ALWAYS_INLINE V add_product(const V& a, const V& b, const V& sum) { return fma(a, b, sum); }
  static type make(const T* p, int) { return widen(*p); }
};

#ifdef __AVX512BF16__
// Two numbers, whose products one instruction adds to the sum.
template <>
struct Unit<BFloat16> {
  using type = uint32_t;
  using V = Vector<BFloat16>;
  static constexpr int depth = 2;
  static ALWAYS_INLINE __m512i load(const type* p) { return _mm512_load_si512(p); }
  static ALWAYS_INLINE __m512i splat(const BFloat16* p, int count) { return _mm512_set1_epi32(int(make(p, count))); }
  static ALWAYS_INLINE V add_product(__m512i a, __m512i b, const V& sum) {
    return {_mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b))};
  }
  static ALWAYS_INLINE type make(const BFloat16* p, int count) {  // a missing second number is 0
    type pair = p->bits;
    if (count > 1) memcpy(&pair, p, sizeof(pair));
    return pair;
  }
};
#endif

#ifdef __AVX512F__
// 16 rows of 16 numbers of 4 bytes each to columns.
ALWAYS_INLINE void transpose(__m512i (&row)[16]) {
  __m512i pair[16], four[16];  // of two and of four rows the columns of each 128 bits
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pair[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
    pair[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    four[i] = _mm512_unpacklo_epi64(pair[i], pair[i + 2]);
    four[i + 1] = _mm512_unpackhi_epi64(pair[i], pair[i + 2]);
    four[i + 2] = _mm512_unpacklo_epi64(pair[i + 1], pair[i + 3]);
    four[i + 3] = _mm512_unpackhi_epi64(pair[i + 1], pair[i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i even[2] = {_mm512_shuffle_i32x4(four[j], four[4 + j], 0x88),
                             _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0x88)};
    const __m512i odd[2] = {_mm512_shuffle_i32x4(four[j], four[4 + j], 0xdd),
                            _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0xdd)};
    row[j] = _mm512_shuffle_i32x4(even[0], even[1], 0x88);
    row[4 + j] = _mm512_shuffle_i32x4(odd[0], odd[1], 0x88);
    row[8 + j] = _mm512_shuffle_i32x4(even[0], even[1], 0xdd);
    row[12 + j] = _mm512_shuffle_i32x4(odd[0], odd[1], 0xdd);
  }
}
#endif

// Lays `columns` rows of a weight (columns, depth) side by side: (units, width), zeros in what is beyond.
template <typename T>
void pack(const T* weight, int64_t depth, int64_t columns, int64_t width, typename Unit<T>::type* out) {
  using U = Unit<T>;
  const int64_t units = (depth + U::depth - 1) / U::depth;
  int64_t whole = 0;  // units that need not be made one by one
#ifdef __AVX512F__
  if constexpr (U::depth * sizeof(T) == 4 && Vector<T>::size == 16) {
    whole = depth / U::depth;
    for (int64_t first = 0; first < width; first += 16)
      for (int64_t unit = 0; unit < whole; unit += 16) {
        const __mmask16 mask = __mmask16(whole - unit < 16 ? (1 << (whole - unit)) - 1 : 0xffff);
        __m512i block[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i)
          block[i] = first + i < columns
                         ? _mm512_maskz_loadu_epi32(mask, weight + (first + i) * depth + unit * U::depth)
                         : _mm512_setzero_si512();
        transpose(block);
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i)
          if (unit + i < whole) _mm512_store_si512(out + (unit + i) * width + first, block[i]);
      }
  }
#endif
  for (int64_t unit = whole; unit < units; ++unit)
    for (int64_t column = 0; column < width; ++column)
      out[unit * width + column] =
          column < columns ? U::make(weight + column * depth + unit * U::depth, int(depth - unit * U::depth)) : 0;
}

}  // namespace fused_layers::CPU_PATH
