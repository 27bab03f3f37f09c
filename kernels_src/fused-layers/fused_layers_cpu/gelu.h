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

// To 1e-6, for float32 and float16. The argument of the polynomial is moved to [-1, 1], where float32 evaluates it well.
template <class V>
ALWAYS_INLINE V gelu_to_float(const V& x) {
  constexpr float kRange = 5.25f;
  constexpr float kPolynomial[] = {1.9510995e-4f,  -6.1782927e-4f, 7.947965e-4f,   -1.148633e-3f,  2.747225e-3f,
                                   -5.331749e-3f,  8.496078e-3f,   -1.2834435e-2f, 1.8517753e-2f,  -2.5027584e-2f,
                                   3.2033976e-2f,  -3.9764877e-2f, 4.9645677e-2f,  -6.712677e-2f,  1.3465935e-1f};
  const V bounded = max(V::splat(-kRange), x), inside = min(V::splat(kRange), bounded);
  const V r = fma(inside * inside, V::splat(2 / (kRange * kRange)), V::splat(-1));
  return bounded * fma(polynomial(kPolynomial, r), inside, V::splat(0.5f));
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

// `T` is the type that the result is rounded to.
template <typename T, class V>
ALWAYS_INLINE V gelu_of(const V& x) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return V::each([&](int i) { return x.lane[i] * (0.5 * std::erfc(x.lane[i] * -0.70710678118654752)); });
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return gelu_to_bfloat16(x);
  } else {
    return gelu_to_float(x);
  }
}

template <typename T>
void gelu(const T* input, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  each_vector<V>(end - begin, [&](int64_t i, int count) {
    store(gelu_of<T>(load<V>(input + begin + i, count)), output + begin + i, count);
  });
}

}  // namespace fused_layers::CPU_PATH
