// The derivative of GELU, the share s of a normal distribution below x and x times its density, times a gradient.
#pragma once

#include "gelu.h"

namespace fused_layers::CPU_PATH {

template <typename T, class V>
ALWAYS_INLINE V gelu_derivative(const V& x) {
  if constexpr (sizeof(T) == sizeof(double)) {
    const V share = V::each([&](int i) { return 0.5 * std::erfc(x.lane[i] * -0.70710678118654752); });
    return fma(x, exp(x * x * V::splat(-0.5)) * V::splat(0.39894228040143268), share);
  } else {
    // beyond the range the derivative is 0 or 1 to 3e-6; the order keeps NaN
    const V inside = min(V::splat(kShareRange), max(V::splat(-kShareRange), x));
    const V density = exp(inside * inside * V::splat(-0.5f)) * V::splat(0.39894228f);
    return fma(inside, density, share_below(inside));
  }
}

template <typename T>
void gelu_backward(const T* gradient, const T* input, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  each_vector<V>(end - begin, [&](int64_t i, int count) {
    const V x = load<V>(input + begin + i, count), g = load<V>(gradient + begin + i, count);
    store(g * gelu_derivative<T>(x), output + begin + i, count);
  });
}

}  // namespace fused_layers::CPU_PATH
