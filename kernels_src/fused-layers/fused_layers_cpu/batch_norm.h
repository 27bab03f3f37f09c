// What the BatchNorms of a trained model become beside a convolution.
#pragma once

#include <cmath>

#include "common/buffer.h"
#include "normalize.h"
#include "pointwise_problem.h"

namespace fused_layers::CPU_PATH {

template <typename T>
void batch_norm_factors(const BatchNorm<T>& norm, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) {
    norm.scale[c] = widen(norm.weight[c]) / std::sqrt(widen(norm.variance[c]) + norm.eps);
    norm.shift[c] = widen(norm.bias[c]) - widen(norm.mean[c]) * norm.scale[c];
  }
}

template <typename T>
void merge_kernels(const Kernels<T>& p, int64_t begin, int64_t end) {
  using V = Vector<T>;
  const int64_t taps = p.height * p.width, small_taps = p.small_height * p.small_width;
  const int64_t top = (p.height - p.small_height) / 2, left = (p.width - p.small_width) / 2;
  Buffer<Compute<T>> buffer;
  Compute<T>* const sum = buffer.at_least(taps);
  for (int64_t c = begin; c < end; ++c) {
    const V scale = V::splat(p.scale[c]);
    const T *const kernel = p.kernels + c * taps, *const small = p.small + c * small_taps;
    each_vector<V>(taps, [&](int64_t i, int count) { store(load<V>(kernel + i, count) * scale, sum + i, count); });
    for (int64_t i = 0; i < small_taps; ++i)
      sum[(top + i / p.small_width) * p.width + left + i % p.small_width] += widen(small[i]) * p.small_scale[c];
    T* const out = p.output + c * taps;
    each_vector<V>(taps, [&](int64_t i, int count) { store(load<V>(sum + i, count), out + i, count); });
  }
}

#define INSTANTIATE(T)                                                        \
  template void batch_norm_factors<T>(const BatchNorm<T>&, int64_t, int64_t); \
  template void merge_kernels<T>(const Kernels<T>&, int64_t, int64_t);
FOR_EACH_TYPE(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fused_layers::CPU_PATH
