// LayerNorm of rows: the mean, then the variance around it, then the result. A row is read three times, but from the
// first-level cache, and is so exact whatever its mean.
#pragma once

#include <cmath>

#include "problem.h"

namespace fused_layers::CPU_PATH {

template <typename T>
using Vector = typename Path<T>::Vector;

// Calls f(position, count) for the vectors of a row; only the last may be short.
template <class V, typename F>
ALWAYS_INLINE void each_vector(int64_t channels, F f) {
  int64_t c = 0;
  for (; c + V::size <= channels; c += V::size) f(c, V::size);
  if (c < channels) f(c, int(channels - c));
}

template <class V, typename T>
ALWAYS_INLINE V load(const T* p, int count, typename V::Scalar rest = 0) {
  return count == V::size ? V::load(p) : V::load_first(p, count, rest);
}

template <class V, typename T>
ALWAYS_INLINE void store(const V& v, T* p, int count) {
  count == V::size ? v.store(p) : v.store_first(p, count);
}

// The sum of f(position, count) over a row, in four sums: one would wait for each addition.
template <class V, typename F>
ALWAYS_INLINE typename V::Scalar sum_of(int64_t channels, F f) {
  V sums[4] = {V::splat(0), V::splat(0), V::splat(0), V::splat(0)};
  int64_t c = 0;
  for (; c + 4 * V::size <= channels; c += 4 * V::size)
    for (int i = 0; i < 4; ++i) sums[i] = sums[i] + f(c + i * V::size, V::size);
  for (; c + V::size <= channels; c += V::size) sums[0] = sums[0] + f(c, V::size);
  if (c < channels) sums[1] = sums[1] + f(c, int(channels - c));
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Normalises one row, given the sum of its numbers, and hands the vectors to finish(position, count, value).
template <typename T, typename Row, typename F>
ALWAYS_INLINE void normalize(const Norm<T>& norm, const Row* row, Compute<T> total, F finish) {
  using V = Vector<T>;
  using A = Compute<T>;
  const A mean = total / A(norm.channels);
  const V center = V::splat(mean);
  const A squares = sum_of<V>(norm.channels, [&](int64_t c, int count) {
    const V difference = load<V>(row + c, count, mean) - center;  // what is beyond the row differs by nothing
    return difference * difference;
  });
  const V factor = V::splat(A(1) / std::sqrt(squares / A(norm.channels) + norm.eps));
  each_vector<V>(norm.channels, [&](int64_t c, int count) {
    const V normalized = (load<V>(row + c, count) - center) * factor;
    finish(c, count, fma(normalized, load<V>(norm.weight + c, count), load<V>(norm.bias + c, count)));
  });
}

template <typename T>
void layer_norm(const Norm<T>& norm, const T* input, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  for (int64_t r = begin; r < end; ++r) {
    const T* const row = input + r * norm.channels;
    T* const out = output + r * norm.channels;
    const auto total = sum_of<V>(norm.channels, [&](int64_t c, int count) { return load<V>(row + c, count); });
    normalize(norm, row, total, [&](int64_t c, int count, const V& value) { store(value, out + c, count); });
  }
}

template <typename T>
void add_layer_norm(const Norm<T>& norm, const Residual<T>& residual, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t first = r * norm.channels;
    T* const row = residual.sum + first;
    each_vector<V>(norm.channels, [&](int64_t c, int count) {
      const V input = load<V>(residual.input + first + c, count), branch = load<V>(residual.branch + first + c, count);
      store(residual.scale ? fma(branch, load<V>(residual.scale + c, count), input) : input + branch, row + c, count);
    });
    // the norm is that of the sum as it was rounded: what the next layer would see
    const auto total = sum_of<V>(norm.channels, [&](int64_t c, int count) { return load<V>(row + c, count); });
    normalize(norm, row, total, [&](int64_t c, int count, const V& value) { store(value, output + first + c, count); });
  }
}

}  // namespace fused_layers::CPU_PATH
