// Sixteen float32 in one AVX-512 register (F, BW, DQ, VL); the interface is that of Lanes.
#pragma once

#include <immintrin.h>

#include "lanes.h"

namespace common::CPU_PATH {

struct Floats16 {
  static constexpr int size = 16, accumulators = 16;
  static constexpr bool kUnderflows = true;
  using Scalar = float;
  struct Mask {
    __mmask16 v;
  };
  __m512 v;

  static ALWAYS_INLINE Floats16 splat(float a) { return {_mm512_set1_ps(a)}; }
  static ALWAYS_INLINE uint32_t first(int n) { return uint32_t((uint64_t(1) << n) - 1); }  // n <= 32
  static ALWAYS_INLINE Floats16 high_half(__m512i bits) {  // the upper 16 bits of each lane are a bfloat16
    return {_mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(int(0xffff0000u))))};
  }
  static ALWAYS_INLINE Floats16 low_half(__m512i bits) { return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))}; }
  // float32 rounded to bfloat16, in the upper 16 bits of each lane; those below are not cleared
  static ALWAYS_INLINE __m512i round_to_bfloat16(__m512 a) {
    const __m512i bits = _mm512_castps_si512(a),
                  last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), last);
    return _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc00000));
  }
  static ALWAYS_INLINE Floats16 from_bits(__m256i bits, const BFloat16*) {
    return low_half(_mm512_cvtepu16_epi32(bits));
  }
  static ALWAYS_INLINE Floats16 from_bits(__m256i bits, const Half*) { return {_mm512_cvtph_ps(bits)}; }
  ALWAYS_INLINE __m256i to_bits(const BFloat16*) const {
#ifdef __AVX512BF16__
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
#endif
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(round_to_bfloat16(v), 16));
  }
  ALWAYS_INLINE __m256i to_bits(const Half*) const { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }

  static ALWAYS_INLINE Floats16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  template <typename T>
  static ALWAYS_INLINE Floats16 load(const T* p) {
    return from_bits(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), p);
  }
  static ALWAYS_INLINE Floats16 load_first(const float* p, int n, float rest) {
    return {_mm512_mask_loadu_ps(_mm512_set1_ps(rest), __mmask16(first(n)), p)};
  }
  template <typename T>
  static ALWAYS_INLINE Floats16 load_first(const T* p, int n, float rest) {
    const __mmask16 mask = __mmask16(first(n));
    return {_mm512_mask_mov_ps(_mm512_set1_ps(rest), mask, from_bits(_mm256_maskz_loadu_epi16(mask, p), p).v)};
  }
  ALWAYS_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  template <typename T>
  ALWAYS_INLINE void store(T* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bits(p));
  }
  ALWAYS_INLINE void store_first(float* p, int n) const { _mm512_mask_storeu_ps(p, __mmask16(first(n)), v); }
  template <typename T>
  ALWAYS_INLINE void store_first(T* p, int n) const {
    _mm256_mask_storeu_epi16(p, __mmask16(first(n)), to_bits(p));
  }

  static ALWAYS_INLINE void load_pairs(const float* p, int n, Floats16& x, Floats16& y) {
    const uint32_t mask = first(2 * n);
    const __m512 a = _mm512_maskz_loadu_ps(__mmask16(mask), p),
                 b = _mm512_maskz_loadu_ps(__mmask16(mask >> 16), p + 16);
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    x.v = _mm512_permutex2var_ps(a, even, b);
    y.v = _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
  }
  static ALWAYS_INLINE void load_pairs(const BFloat16* p, int n, Floats16& x, Floats16& y) {
    const __m512i pairs = _mm512_maskz_loadu_epi32(__mmask16(first(n)), p);
    x = low_half(pairs), y = high_half(pairs);
  }
  static ALWAYS_INLINE void load_pairs(const Half* p, int n, Floats16& x, Floats16& y) {
    const __m512i pairs = _mm512_maskz_loadu_epi32(__mmask16(first(n)), p);
    x.v = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs));
    y.v = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16)));
  }
  static ALWAYS_INLINE void store_pairs(float* p, int n, Floats16 x, Floats16 y) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    const uint32_t mask = first(2 * n);
    _mm512_mask_storeu_ps(p, __mmask16(mask), _mm512_permutex2var_ps(x.v, low, y.v));
    _mm512_mask_storeu_ps(p + 16, __mmask16(mask >> 16), _mm512_permutex2var_ps(x.v, high, y.v));
  }
  template <typename T>
  static ALWAYS_INLINE void store_pairs(T* p, int n, Floats16 x, Floats16 y) {
    const __m512i low = _mm512_cvtepu16_epi32(x.to_bits(p)), high = _mm512_cvtepu16_epi32(y.to_bits(p));
    _mm512_mask_storeu_epi32(p, __mmask16(first(n)), _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }

  template <typename T, int V>
  static ALWAYS_INLINE void load_channels(const T* p, Floats16 (&r)[V]) {
    for (int i = 0; i < V; ++i) r[i] = load(p + i * size);
  }
  template <typename T, int V>
  static ALWAYS_INLINE void store_channels(T* p, const Floats16 (&r)[V]) {
    for (int i = 0; i < V; ++i) r[i].store(p + i * size);
  }
  // Two vectors of bfloat16 come as even and odd channels: one load, a shift and a mask.
  template <int V>
  static ALWAYS_INLINE void load_channels(const BFloat16* p, Floats16 (&r)[V]) {
    for (int i = 0; i + 1 < V; i += 2) {
      const __m512i pairs = _mm512_loadu_si512(p + i * size);
      r[i] = low_half(pairs), r[i + 1] = high_half(pairs);
    }
    if (V % 2) r[V - 1] = load(p + (V - 1) * size);
  }
  template <int V>
  static ALWAYS_INLINE void store_channels(BFloat16* p, const Floats16 (&r)[V]) {
    for (int i = 0; i + 1 < V; i += 2) {
      const __m512i even = _mm512_srli_epi32(round_to_bfloat16(r[i].v), 16), odd = round_to_bfloat16(r[i + 1].v);
      _mm512_storeu_si512(p + i * size, _mm512_mask_blend_epi16(0xaaaaaaaau, even, odd));
    }
    if (V % 2) r[V - 1].store(p + (V - 1) * size);
  }

  friend ALWAYS_INLINE Floats16 operator+(Floats16 a, Floats16 b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Floats16 operator-(Floats16 a, Floats16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Floats16 operator*(Floats16 a, Floats16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Floats16 fma(Floats16 a, Floats16 b, Floats16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  friend ALWAYS_INLINE Floats16 min(Floats16 a, Floats16 b) { return {_mm512_min_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Floats16 max(Floats16 a, Floats16 b) { return {_mm512_max_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Floats16 abs(Floats16 a) { return {_mm512_abs_ps(a.v)}; }
  friend ALWAYS_INLINE Floats16 floor(Floats16 a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
  }
  friend ALWAYS_INLINE Floats16 times_power_of_two(Floats16 a, Floats16 n) { return {_mm512_scalef_ps(a.v, n.v)}; }
  friend ALWAYS_INLINE Floats16 exp(Floats16 a) { return exp_float(a); }
  friend ALWAYS_INLINE Mask equal(Floats16 a, Floats16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
  friend ALWAYS_INLINE Mask less(Floats16 a, Floats16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
  friend ALWAYS_INLINE Mask operator&(Mask a, Mask b) { return {__mmask16(a.v & b.v)}; }
  friend ALWAYS_INLINE Mask operator|(Mask a, Mask b) { return {__mmask16(a.v | b.v)}; }
  friend ALWAYS_INLINE Floats16 select(Mask m, Floats16 a, Floats16 b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }
  friend ALWAYS_INLINE float sum(Floats16 a) { return _mm512_reduce_add_ps(a.v); }
  friend ALWAYS_INLINE float maximum(Floats16 a) { return _mm512_reduce_max_ps(a.v); }
  friend ALWAYS_INLINE bool has_nan(Floats16 a) { return _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q) != 0; }

  static ALWAYS_INLINE __m512
  sums_of_four(const Floats16* r) {  // each 128-bit quarter holds the sums of its four lanes
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(r[0].v, r[1].v), _mm512_unpackhi_ps(r[0].v, r[1].v));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(r[2].v, r[3].v), _mm512_unpackhi_ps(r[2].v, r[3].v));
    const __m512d p = _mm512_castps_pd(ab), q = _mm512_castps_pd(cd);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p, q)), _mm512_castpd_ps(_mm512_unpackhi_pd(p, q)));
  }
  static ALWAYS_INLINE __m512 add_quarters(__m512 a, __m512 b) {  // a0+a1, a2+a3, b0+b1, b2+b3
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
  static ALWAYS_INLINE Floats16 sums(const Floats16 (&r)[size]) {
    return {add_quarters(add_quarters(sums_of_four(r), sums_of_four(r + 4)),
                         add_quarters(sums_of_four(r + 8), sums_of_four(r + 12)))};
  }
  static ALWAYS_INLINE void store_indices(int32_t* p, Floats16 x, Floats16 y, int32_t width) {
    const __m512i rows = _mm512_mullo_epi32(_mm512_cvtps_epi32(y.v), _mm512_set1_epi32(width));
    _mm512_storeu_si512(p, _mm512_add_epi32(rows, _mm512_cvtps_epi32(x.v)));
  }
};

}  // namespace common::CPU_PATH
