// A vector of N numbers in plain C++: the portable path, and float64 on every path.
//
// Vectors compare like the SSE instructions do: min(a, b) and max(a, b) return b where one of them is not a number.
#pragma once

#include <cstdint>
#include <cstring>

#include "numbers.h"

namespace common::CPU_PATH {

ALWAYS_INLINE float power_of_two(float n) { return as_float(uint32_t(int32_t(n) + 127) << 23); }
ALWAYS_INLINE double power_of_two(double n) {
  const uint64_t bits = uint64_t(int64_t(n) + 1023) << 52;
  double value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// e^x = 2^n times a polynomial in what is left, to 2 units in the last place. Our own, because the C library's exp
// asks for a newer one than manylinux_2_28 has.
template <class V>
ALWAYS_INLINE V exp_float(const V& argument) {                     // the polynomial of Cephes' expf
  const V smallest = V::splat(V::kUnderflows ? -104.0f : -87.3f);  // below, the result is 0
  // min and max with the constant first keep NaN
  const V x = max(smallest, V::kUnderflows ? argument : min(V::splat(88.0f), argument));
  const V n = floor(fma(x, V::splat(1.44269504f), V::splat(0.5f)));
  V r = fma(n, V::splat(-0.693359375f), x);
  r = fma(n, V::splat(2.12194440e-4f), r);
  V p = V::splat(1.9875691500e-4f);
  p = fma(p, r, V::splat(1.3981999507e-3f));
  p = fma(p, r, V::splat(8.3334519073e-3f));
  p = fma(p, r, V::splat(4.1665795894e-2f));
  p = fma(p, r, V::splat(1.6666665459e-1f));
  p = fma(p, r, V::splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + V::splat(1.0f);
  if constexpr (V::kUnderflows) return times_power_of_two(p, n);
  return select(less(argument, smallest), V::splat(0.0f), times_power_of_two(p, n));
}

template <class V>
ALWAYS_INLINE V exp_double(const V& argument) {  // Taylor's polynomial
  const V smallest = V::splat(-708.0);
  const V x = max(smallest, min(V::splat(709.0), argument));
  const V n = floor(fma(x, V::splat(1.4426950408889634), V::splat(0.5)));
  V r = fma(n, V::splat(-6.93145751953125e-1), x);
  r = fma(n, V::splat(-1.42860682030941723212e-6), r);
  V p = V::splat(1.0);
  for (int i = 14; i > 0; --i) p = fma(p, r * V::splat(1.0 / i), V::splat(1.0));
  return select(less(argument, smallest), V::splat(0.0), times_power_of_two(p, n));
}

template <typename A, int N>
struct Lanes {
  static constexpr int size = N, accumulators = 8;
  static constexpr bool kUnderflows = false;  // whether times_power_of_two may leave the range of normal numbers
  using Scalar = A;
  struct Mask {
    bool lane[N];
  };
  A lane[N];

  template <typename F>
  static ALWAYS_INLINE Lanes each(F f) {
    Lanes r;
    for (int i = 0; i < N; ++i) r.lane[i] = f(i);
    return r;
  }
  template <typename F>
  static ALWAYS_INLINE Mask mask(F f) {
    Mask r;
    for (int i = 0; i < N; ++i) r.lane[i] = f(i);
    return r;
  }
  static ALWAYS_INLINE Lanes splat(A a) {
    return each([&](int) { return a; });
  }
  template <typename T>
  static ALWAYS_INLINE Lanes load(const T* p) {
    return each([&](int i) { return widen(p[i]); });
  }
  template <typename T>
  static ALWAYS_INLINE Lanes load_first(const T* p, int n, A rest) {
    return each([&](int i) { return i < n ? widen(p[i]) : rest; });
  }
  template <typename T>
  ALWAYS_INLINE void store(T* p) const {
    store_first(p, N);
  }
  template <typename T>
  ALWAYS_INLINE void store_first(T* p, int n) const {
    for (int i = 0; i < n; ++i) narrow(lane[i], p[i]);
  }
  // n pairs x y x y ...
  template <typename T>
  static ALWAYS_INLINE void load_pairs(const T* p, int n, Lanes& x, Lanes& y) {
    x = each([&](int i) { return i < n ? widen(p[2 * i]) : A(0); });
    y = each([&](int i) { return i < n ? widen(p[2 * i + 1]) : A(0); });
  }
  template <typename T>
  static ALWAYS_INLINE void store_pairs(T* p, int n, const Lanes& x, const Lanes& y) {
    for (int i = 0; i < n; ++i) narrow(x.lane[i], p[2 * i]), narrow(y.lane[i], p[2 * i + 1]);
  }
  // size * V channels in an order of the vector's choice; store_channels undoes it
  template <typename T, int V>
  static ALWAYS_INLINE void load_channels(const T* p, Lanes (&r)[V]) {
    for (int v = 0; v < V; ++v) r[v] = load(p + v * N);
  }
  template <typename T, int V>
  static ALWAYS_INLINE void store_channels(T* p, const Lanes (&r)[V]) {
    for (int v = 0; v < V; ++v) r[v].store(p + v * N);
  }
  friend ALWAYS_INLINE Lanes operator+(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  friend ALWAYS_INLINE Lanes operator-(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  friend ALWAYS_INLINE Lanes operator*(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  friend ALWAYS_INLINE Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) { return a * b + c; }
  friend ALWAYS_INLINE Lanes min(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  friend ALWAYS_INLINE Lanes max(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  friend ALWAYS_INLINE Lanes abs(const Lanes& a) {
    return each([&](int i) { return a.lane[i] < 0 ? -a.lane[i] : a.lane[i]; });
  }
  // exact up to 2^30; beyond, and for NaN, any large whole number
  friend ALWAYS_INLINE Lanes floor(const Lanes& a) {
    const Lanes bounded = min(max(a, splat(-0x1p30)), splat(0x1p30));
    return each([&](int i) {
      const A whole = A(int32_t(bounded.lane[i]));
      return whole > bounded.lane[i] ? whole - 1 : whole;
    });
  }
  friend ALWAYS_INLINE Lanes times_power_of_two(const Lanes& a, const Lanes& n) {
    return each([&](int i) { return a.lane[i] * power_of_two(n.lane[i]); });
  }
  friend ALWAYS_INLINE Lanes exp(const Lanes& a) {
    if constexpr (sizeof(A) == sizeof(double))
      return exp_double(a);
    else
      return exp_float(a);
  }
  friend ALWAYS_INLINE Mask equal(const Lanes& a, const Lanes& b) {
    return mask([&](int i) { return a.lane[i] == b.lane[i]; });
  }
  friend ALWAYS_INLINE Mask less(const Lanes& a, const Lanes& b) {
    return mask([&](int i) { return a.lane[i] < b.lane[i]; });
  }
  friend ALWAYS_INLINE Mask operator&(const Mask& a, const Mask& b) {
    return mask([&](int i) { return a.lane[i] && b.lane[i]; });
  }
  friend ALWAYS_INLINE Mask operator|(const Mask& a, const Mask& b) {
    return mask([&](int i) { return a.lane[i] || b.lane[i]; });
  }
  friend ALWAYS_INLINE Lanes select(const Mask& m, const Lanes& a, const Lanes& b) {
    return each([&](int i) { return m.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  friend ALWAYS_INLINE A sum(const Lanes& a) {
    A s = 0;
    for (int i = 0; i < N; ++i) s += a.lane[i];
    return s;
  }
  friend ALWAYS_INLINE A maximum(const Lanes& a) {
    A m = a.lane[0];
    for (int i = 1; i < N; ++i) m = a.lane[i] > m ? a.lane[i] : m;
    return m;
  }
  friend ALWAYS_INLINE bool has_nan(const Lanes& a) {
    bool nan = false;
    for (int i = 0; i < N; ++i) nan |= a.lane[i] != a.lane[i];
    return nan;
  }
  // lane i of the result is the sum of row i
  static ALWAYS_INLINE Lanes sums(const Lanes (&rows)[N]) {
    return each([&](int i) { return sum(rows[i]); });
  }
  // y * width + x as int32, for whole x and y
  static ALWAYS_INLINE void store_indices(int32_t* p, const Lanes& x, const Lanes& y, int32_t width) {
    for (int i = 0; i < N; ++i) p[i] = int32_t(y.lane[i]) * width + int32_t(x.lane[i]);
  }
};

}  // namespace common::CPU_PATH
