// GELU, x times the share of a normal distribution that lies below x.
//
// That share is 1/2 + x p(x^2), with a polynomial p that was fitted (least squares, reweighted until the largest error
// is smallest). Beyond the range of the fit the share is 0 or 1 to within its error.
#pragma once

#include <cmath>
#include <type_traits>

#include "normalize.h"

namespace fused_layers::CPU_PATH {

// p at r by Horner's rule, highest power first
template <class V, size_t N>
ALWAYS_INLINE V polynomial(const float (&coefficients)[N], const V& r) {
  V p = V::splat(coefficients[0]);
  for (size_t i = 1; i < N; ++i) p = fma(p, r, V::splat(coefficients[i]));
  return p;
}

// The share below x, which lies in the range of the fit: x times it is right to 1e-6, for float32 and float16. The argument
// of the polynomial is moved to [-1, 1], where float32 evaluates it well.
constexpr float kShareRange = 5.25f;
template <class V>
ALWAYS_INLINE V share_below(const V& x) {
  constexpr float kPolynomial[] = {1.9510995e-4f,  -6.1782927e-4f, 7.947965e-4f,   -1.148633e-3f,  2.747225e-3f,
                                   -5.331749e-3f,  8.496078e-3f,   -1.2834435e-2f, 1.8517753e-2f,  -2.5027584e-2f,
                                   3.2033976e-2f,  -3.9764877e-2f, 4.9645677e-2f,  -6.712677e-2f,  1.3465935e-1f};
  const V r = fma(x * x, V::splat(2 / (kShareRange * kShareRange)), V::splat(-1));
  return fma(polynomial(kPolynomial, r), x, V::splat(0.5f));
}

template <class V>
ALWAYS_INLINE V gelu_to_float(const V& x) {
  const V bounded = max(V::splat(-kShareRange), x);
  return bounded * share_below(min(V::splat(kShareRange), bounded));
}

// For bfloat16, which has 8 bits: to 9 bits, or 4e-5 where the result is closer to 0.
template <class V>
ALWAYS_INLINE V gelu_to_bfloat16(const V& x) {
  constexpr float kRange = 4.5f;
  constexpr float kPolynomial[] = {-9.793336e-13f, 1.2534139e-10f, -7.191686e-9f, 2.455423e-7f,  -5.5935516e-6f,
                                   9.0475216e-5f,  -1.0790128e-3f, 9.683398e-3f, -6.607566e-2f, 3.987185e-1f};
  const V bounded = max(V::splat(-kRange), x), inside = min(V::splat(kRange), bounded);
  return bounded * fma(polynomial(kPolynomial, inside * inside), inside, V::splat(0.5f));
}

#ifdef __AVX512F__
// On AVX-512 with less arithmetic: max(x, 0) less h(|x|), where h(a) = a times the share above a. Around each of 32
// points h is a polynomial; the lowest bits of |x| times their number per unit, rounded, say which, and two registers hold
// what the 32 polynomials have of one power.
template <int kDegree>
struct GeluTable {
  static constexpr float kPerUnit = kDegree > 2 ? 6 : 7;  // the last point's reach is where h is close enough to 0
  alignas(64) float power[kDegree + 1][32];

  GeluTable() {
    constexpr double kPi = 3.14159265358979324, kReach = 0.5 / kPerUnit;
    const auto share = [](double a) { return 0.5 * std::erfc(a * 0.70710678118654752); };
    for (int i = 0; i < 32; ++i) {
      // Newton's interpolation in Chebyshev's nodes; around 0 of the share itself, so that h(0) is 0
      const int nodes = i ? kDegree + 1 : kDegree;
      double r[kDegree + 1], value[kDegree + 1], sum[kDegree + 2] = {};
      for (int j = 0; j < nodes; ++j) {
        r[j] = kReach * std::cos(kPi * (j + 0.5) / nodes);
        if (!i) r[j] = (r[j] + kReach) / 2;
        const double a = i / double(kPerUnit) + r[j];
        value[j] = i ? a * share(a) : share(a);
      }
      for (int order = 1; order < nodes; ++order)
        for (int j = nodes - 1; j >= order; --j) value[j] = (value[j] - value[j - 1]) / (r[j] - r[j - order]);
      for (int j = nodes - 1; j >= 0; --j) {  // sum = sum * (r - r[j]) + value[j]
        for (int n = nodes - 1; n > 0; --n) sum[n] = sum[n - 1] - r[j] * sum[n];
        sum[0] = value[j] - r[j] * sum[0];
      }
      for (int n = 0; n <= kDegree; ++n) power[n][i] = float(i ? sum[n] : n ? sum[n - 1] : 0);
    }
  }
};

template <int kDegree>
__attribute__((noinline)) const GeluTable<kDegree>& gelu_table() {
  static const GeluTable<kDegree> table;
  return table;
}
#endif

// GELU of vectors; `T` is the type that the result is rounded to. One is made before a loop.
template <typename T>
struct Gelu {
  using V = Vector<T>;
#ifdef __AVX512F__
  static constexpr int kDegree = std::is_same_v<T, BFloat16> ? 2 : 3;
  V low[kDegree + 1], high[kDegree + 1];
  Gelu() {
    const auto& power = gelu_table<kDegree>().power;
    for (int n = 0; n <= kDegree; ++n) low[n] = V::load(power[n]), high[n] = V::load(power[n] + 16);
  }
  ALWAYS_INLINE V operator()(const V& x) const {
    constexpr float kPerUnit = GeluTable<kDegree>::kPerUnit;
    const V magic = V::splat(0x1.8p23f);  // what is added to it is rounded to a whole number
    const V a = min(abs(x), V::splat(31.49f / kPerUnit)), sum = fma(a, V::splat(kPerUnit), magic);
    const V r = fma(sum - magic, V::splat(-1 / kPerUnit), a);
    const auto of_point = [&](int n) {
      return V{_mm512_permutex2var_ps(low[n].v, _mm512_castps_si512(sum.v), high[n].v)};
    };
    V h = of_point(kDegree);
#pragma GCC unroll 3
    for (int n = kDegree - 1; n >= 0; --n) h = fma(h, r, of_point(n));
    return max(V::splat(0), x) - h;
  }
#else
  ALWAYS_INLINE V operator()(const V& x) const {
    if constexpr (std::is_same_v<T, BFloat16>) return gelu_to_bfloat16(x);
    return gelu_to_float(x);
  }
#endif
};
template <>
struct Gelu<double> {
  using V = Vector<double>;
  ALWAYS_INLINE V operator()(const V& x) const {
    return V::each([&](int i) { return x.lane[i] * (0.5 * std::erfc(x.lane[i] * -0.70710678118654752)); });
  }
};

template <typename T>
void gelu(const T* input, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  const Gelu<T> gelu_of;
  each_vector<V>(end - begin, [&](int64_t i, int count) {
    store(gelu_of(load<V>(input + begin + i, count)), output + begin + i, count);
  });
}

}  // namespace fused_layers::CPU_PATH
