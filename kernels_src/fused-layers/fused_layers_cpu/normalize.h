// LayerNorm of rows: the mean, then the variance around it, then the result. A row is read three times, but from the
// first-level cache, and is so exact whatever its mean.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "common/buffer.h"
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

// What a LayerNorm multiplies by and adds, in the type of the arithmetic: widened once, not for every row.
template <typename T>
class Parameters {
 public:
  explicit Parameters(const Norm<T>& norm) : channels_(norm.channels) {
    if constexpr (!std::is_same_v<T, Compute<T>>) {
      widened_.at_least(2 * channels_);
      for (int64_t c = 0; c < channels_; ++c) {
        widened_.at_least(0)[c] = widen(norm.weight[c]);
        widened_.at_least(0)[channels_ + c] = widen(norm.bias[c]);
      }
      weight = widened_.at_least(0), bias = weight + channels_;
    } else {
      weight = norm.weight, bias = norm.bias;
    }
  }
  const Compute<T>*weight, *bias;

 private:
  int64_t channels_;
  Buffer<Compute<T>> widened_;
};

// Normalises rows, and hands the vectors to finish(row, position, count, value). Some rows at a time, because the sums
// over one take longer to complete than to compute.
template <typename T, typename RowOf, typename F>
ALWAYS_INLINE void normalize(const Norm<T>& norm, const Parameters<T>& parameters, int64_t begin, int64_t end,
                             RowOf row_of, F finish) {
  using V = Vector<T>;
  using A = Compute<T>;
  constexpr int kTogether = 4;
  for (int64_t first = begin; first < end; first += kTogether) {
    const int rows = int(std::min<int64_t>(kTogether, end - first));
    A mean[kTogether], factor[kTogether];
    for (int r = 0; r < rows; ++r) {
      const auto row = row_of(first + r);
      mean[r] = sum_of<V>(norm.channels, [&](int64_t c, int count) { return load<V>(row + c, count); });
    }
    for (int r = 0; r < rows; ++r) mean[r] /= A(norm.channels);
    for (int r = 0; r < rows; ++r) {
      const auto row = row_of(first + r);
      const V center = V::splat(mean[r]);
      factor[r] = sum_of<V>(norm.channels, [&](int64_t c, int count) {
        const V difference = load<V>(row + c, count, mean[r]) - center;  // what is beyond the row differs by nothing
        return difference * difference;
      });
    }
    for (int r = 0; r < rows; ++r) factor[r] = A(1) / std::sqrt(factor[r] / A(norm.channels) + norm.eps);
    for (int r = 0; r < rows; ++r) {
      const auto row = row_of(first + r);
      const V center = V::splat(mean[r]), scale = V::splat(factor[r]);
      each_vector<V>(norm.channels, [&](int64_t c, int count) {
        const V normalized = (load<V>(row + c, count) - center) * scale;
        finish(first + r, c, count,
               fma(normalized, load<V>(parameters.weight + c, count), load<V>(parameters.bias + c, count)));
      });
    }
  }
}

template <typename T>
void layer_norm(const Norm<T>& norm, const T* input, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  const Parameters<T> parameters(norm);
  normalize(
      norm, parameters, begin, end, [&](int64_t r) { return input + r * norm.channels; },
      [&](int64_t r, int64_t c, int count, const V& value) { store(value, output + r * norm.channels + c, count); });
}

template <typename T>
void add_layer_norm(const Norm<T>& norm, const Residual<T>& residual, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  constexpr int64_t kTogether = 4;
  const Parameters<T> parameters(norm);
  for (int64_t first = begin; first < end; first += kTogether) {
    const int64_t last = std::min(end, first + kTogether);
    for (int64_t r = first; r < last; ++r) {
      const int64_t at = r * norm.channels;
      each_vector<V>(norm.channels, [&](int64_t c, int count) {
        const V input = load<V>(residual.input + at + c, count), branch = load<V>(residual.branch + at + c, count);
        const V sum = residual.scale ? fma(branch, load<V>(residual.scale + c, count), input) : input + branch;
        store(sum, residual.sum + at + c, count);
      });
    }
    // the norm is that of the sum as it was rounded: what the next layer would see
    normalize(
        norm, parameters, first, last, [&](int64_t r) { return residual.sum + r * norm.channels; },
        [&](int64_t r, int64_t c, int count, const V& value) { store(value, output + r * norm.channels + c, count); });
  }
}

}  // namespace fused_layers::CPU_PATH
