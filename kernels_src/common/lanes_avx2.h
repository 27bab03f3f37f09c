// Eight float32 in one AVX2 register; the interface is that of Lanes.
#pragma once

#include <immintrin.h>

#include "lanes.h"

namespace common::CPU_PATH {

struct Floats8 {
  static constexpr int size = 8, accumulators = 8;
  static constexpr bool kUnderflows = false;
  using Scalar = float;
  struct Mask {
    __m256 v;
  };
  __m256 v;

  static ALWAYS_INLINE Floats8 splat(float a) { return {_mm256_set1_ps(a)}; }
  static ALWAYS_INLINE __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static ALWAYS_INLINE __m128i load_bits(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static ALWAYS_INLINE Floats8 high_half(__m256i bits) {  // the upper 16 bits of each lane are a bfloat16
    return {_mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(int(0xffff0000u))))};
  }
  static ALWAYS_INLINE Floats8 low_half(__m256i bits) { return {_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16))}; }
  // float32 rounded to bfloat16, in the upper 16 bits of each lane; those below are not cleared
  static ALWAYS_INLINE __m256i round_to_bfloat16(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a),
                  last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), last);
    const __m256 quiet = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
    return _mm256_castps_si256(
        _mm256_blendv_ps(_mm256_castsi256_ps(rounded), quiet, _mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
  }

  static ALWAYS_INLINE Floats8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static ALWAYS_INLINE Floats8 load(const BFloat16* p) { return low_half(_mm256_cvtepu16_epi32(load_bits(p))); }
  static ALWAYS_INLINE Floats8 load(const Half* p) { return {_mm256_cvtph_ps(load_bits(p))}; }
  static ALWAYS_INLINE Floats8 load_first(const float* p, int n, float rest) {
    const __m256i mask = first(n);
    return {_mm256_blendv_ps(_mm256_set1_ps(rest), _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask))};
  }
  template <typename T>
  static ALWAYS_INLINE Floats8 load_first(const T* p, int n, float rest) {
    if (n >= size) return load(p);
    T copy[size] = {};
    for (int i = 0; i < n; ++i) copy[i] = p[i];
    return {_mm256_blendv_ps(_mm256_set1_ps(rest), load(copy).v, _mm256_castsi256_ps(first(n)))};
  }
  ALWAYS_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  ALWAYS_INLINE void store(BFloat16* p) const {
    const __m256i bits = _mm256_srli_epi32(round_to_bfloat16(v), 16);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
  }
  ALWAYS_INLINE void store(Half* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  template <typename T>
  ALWAYS_INLINE void store_first(T* p, int n) const {
    if (n >= size) return store(p);
    T copy[size];
    store(copy);
    for (int i = 0; i < n; ++i) p[i] = copy[i];
  }

  static ALWAYS_INLINE void load_pairs(const float* p, int n, Floats8& x, Floats8& y) {
    const __m256 a = _mm256_maskload_ps(p, first(2 * n)), b = _mm256_maskload_ps(p + 8, first(2 * n - 8));
    const auto in_order = [](__m256 even) {
      return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(even), _MM_SHUFFLE(3, 1, 2, 0)));
    };
    x.v = in_order(_mm256_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)));
    y.v = in_order(_mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
  }
  static ALWAYS_INLINE void load_pairs(const BFloat16* p, int n, Floats8& x, Floats8& y) {
    const __m256i pairs = _mm256_maskload_epi32(reinterpret_cast<const int*>(p), first(n));
    x = low_half(pairs), y = high_half(pairs);
  }
  static ALWAYS_INLINE void load_pairs(const Half* p, int n, Floats8& x, Floats8& y) {
    Half xs[size] = {}, ys[size] = {};
    for (int i = 0; i < n; ++i) xs[i] = p[2 * i], ys[i] = p[2 * i + 1];
    x = load(xs), y = load(ys);
  }
  template <typename T>
  static ALWAYS_INLINE void store_pairs(T* p, int n, Floats8 x, Floats8 y) {
    T xs[size], ys[size];
    x.store(xs), y.store(ys);
    for (int i = 0; i < n; ++i) p[2 * i] = xs[i], p[2 * i + 1] = ys[i];
  }

  template <typename T, int V>
  static ALWAYS_INLINE void load_channels(const T* p, Floats8 (&r)[V]) {
    for (int i = 0; i < V; ++i) r[i] = load(p + i * size);
  }
  template <typename T, int V>
  static ALWAYS_INLINE void store_channels(T* p, const Floats8 (&r)[V]) {
    for (int i = 0; i < V; ++i) r[i].store(p + i * size);
  }
  // Two vectors of bfloat16 come as even and odd channels: one load, a shift and a mask.
  template <int V>
  static ALWAYS_INLINE void load_channels(const BFloat16* p, Floats8 (&r)[V]) {
    for (int i = 0; i + 1 < V; i += 2) {
      const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i * size));
      r[i] = low_half(pairs), r[i + 1] = high_half(pairs);
    }
    if (V % 2) r[V - 1] = load(p + (V - 1) * size);
  }
  template <int V>
  static ALWAYS_INLINE void store_channels(BFloat16* p, const Floats8 (&r)[V]) {
    for (int i = 0; i + 1 < V; i += 2) {
      const __m256i even = _mm256_srli_epi32(round_to_bfloat16(r[i].v), 16), odd = round_to_bfloat16(r[i + 1].v);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + i * size), _mm256_blend_epi16(even, odd, 0xaa));
    }
    if (V % 2) r[V - 1].store(p + (V - 1) * size);
  }

  friend ALWAYS_INLINE Floats8 operator+(Floats8 a, Floats8 b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Floats8 operator-(Floats8 a, Floats8 b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Floats8 operator*(Floats8 a, Floats8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Floats8 fma(Floats8 a, Floats8 b, Floats8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  friend ALWAYS_INLINE Floats8 min(Floats8 a, Floats8 b) { return {_mm256_min_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Floats8 max(Floats8 a, Floats8 b) { return {_mm256_max_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Floats8 abs(Floats8 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
  friend ALWAYS_INLINE Floats8 floor(Floats8 a) { return {_mm256_floor_ps(a.v)}; }
  friend ALWAYS_INLINE Floats8 times_power_of_two(Floats8 a, Floats8 n) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23);
    return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(exponent))};
  }
  friend ALWAYS_INLINE Floats8 exp(Floats8 a) { return exp_float(a); }
  friend ALWAYS_INLINE Mask equal(Floats8 a, Floats8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
  friend ALWAYS_INLINE Mask less(Floats8 a, Floats8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
  friend ALWAYS_INLINE Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Mask operator|(Mask a, Mask b) { return {_mm256_or_ps(a.v, b.v)}; }
  friend ALWAYS_INLINE Floats8 select(Mask m, Floats8 a, Floats8 b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }
  friend ALWAYS_INLINE float sum(Floats8 a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  friend ALWAYS_INLINE float maximum(Floats8 a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  friend ALWAYS_INLINE bool has_nan(Floats8 a) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)) != 0;
  }

  static ALWAYS_INLINE __m256 sums_of_four(const Floats8* r) {  // each 128-bit half holds the sums of its four lanes
    const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(r[0].v, r[1].v), _mm256_unpackhi_ps(r[0].v, r[1].v));
    const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(r[2].v, r[3].v), _mm256_unpackhi_ps(r[2].v, r[3].v));
    const __m256d p = _mm256_castps_pd(ab), q = _mm256_castps_pd(cd);
    return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(p, q)), _mm256_castpd_ps(_mm256_unpackhi_pd(p, q)));
  }
  static ALWAYS_INLINE Floats8 sums(const Floats8 (&rows)[size]) {
    const __m256 a = sums_of_four(rows), b = sums_of_four(rows + 4);
    return {_mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31))};
  }
  static ALWAYS_INLINE void store_indices(int32_t* p, Floats8 x, Floats8 y, int32_t width) {
    const __m256i rows = _mm256_mullo_epi32(_mm256_cvtps_epi32(y.v), _mm256_set1_epi32(width));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_add_epi32(rows, _mm256_cvtps_epi32(x.v)));
  }
};

}  // namespace common::CPU_PATH
