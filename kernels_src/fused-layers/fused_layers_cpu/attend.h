// SMT's attention, one head of one image at a time: some queries against all keys, softmax, the sum of the values. What
// the depthwise convolution of the values gives is added before the one rounding.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/buffer.h"
#include "normalize.h"

namespace fused_layers::CPU_PATH {

// Queries of a step, and vectors of keys (or of a value) beside each other: their sums fill the registers.
constexpr int kQueries = 6;
template <class V>
constexpr int kAside = V::size == 16 ? 4 : 2;

inline int64_t round_up(int64_t number, int64_t part) { return (number + part - 1) / part * part; }

// out[q][i] = sum of left[q][d] * right[d][i] over d < depth, with a vector for each i.
template <int kVectors, class V, typename A>
ALWAYS_INLINE void multiply(const A* left, int64_t left_stride, const A* right, int64_t stride,
                            int64_t depth, A* out, int64_t out_stride) {
  V sums[kQueries][kVectors];
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q)
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) sums[q][i] = V::splat(0);
  for (int64_t d = 0; d < depth; ++d, ++left, right += stride) {
    V row[kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) row[i] = V::load(right + i * V::size);
#pragma GCC unroll 8
    for (int q = 0; q < kQueries; ++q) {
      const V factor = V::splat(left[q * left_stride]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) sums[q][i] = fma(factor, row[i], sums[q][i]);
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q)
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) sums[q][i].store(out + q * out_stride + i * V::size);
}

// The same for any number of columns of `right`, a multiple of the vector's size.
template <class V, typename A>
void multiply_columns(const A* left, int64_t left_stride, const A* right, int64_t columns,
                      int64_t depth, A* out) {
  int64_t c = 0;
  for (; c + kAside<V> * V::size <= columns; c += kAside<V> * V::size)
    multiply<kAside<V>, V>(left, left_stride, right + c, columns, depth, out + c, columns);
  for (; c < columns; c += V::size)
    multiply<1, V>(left, left_stride, right + c, columns, depth, out + c, columns);
}

// Replaces scores by e^(score - largest); returns the inverse of their sum.
template <class V, typename A>
A exponentials(A* scores, int64_t number) {
  constexpr A kLowest = std::numeric_limits<A>::lowest();
  V largest = V::splat(kLowest);
  each_vector<V>(number, [&](int64_t i, int count) { largest = max(load<V>(scores + i, count, kLowest), largest); });
  const V highest = V::splat(maximum(largest));
  V total = V::splat(0);
  each_vector<V>(number, [&](int64_t i, int count) {
    store(exp(load<V>(scores + i, count) - highest), scores + i, count);
    total = total + load<V>(scores + i, count);
  });
  return A(1) / sum(total);
}

template <typename T>
void attend(const Attention<T>& attention, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  using A = Compute<T>;
  const int64_t depth = attention.channels, width = attention.width, pixels = attention.height * width;
  const int64_t stride = attention.heads * depth, padded = round_up(depth, V::size), columns = round_up(pixels, V::size);
  Buffer<A> buffer;
  A* const keys = buffer.at_least(depth * columns + (pixels + 10 + kQueries) * padded + kQueries * (columns + depth));
  A* const values = keys + depth * columns;
  A* const taps = values + pixels * padded;  // nine rows, and one of the bias
  A* const sums = taps + 10 * padded;
  A* const scores = sums + kQueries * padded;
  A* const queries = scores + kQueries * columns;
  std::fill_n(keys, queries - keys, A(0));
  const A scale = A(1 / std::sqrt(double(depth)));
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task / attention.heads * pixels, channel = task % attention.heads * depth;
    for (int64_t p = 0; p < pixels; ++p) {
      const T* const key = attention.key_value + (first + p) * 2 * stride + channel;
      for (int64_t d = 0; d < depth; ++d) keys[d * columns + p] = widen(key[d]);
      each_vector<V>(depth, [&](int64_t d, int count) { load<V>(key + stride + d, count).store(values + p * padded + d); });
    }
    for (int64_t d = 0; d < depth; ++d) {
      for (int tap = 0; tap < 9; ++tap) taps[tap * padded + d] = widen(attention.kernel[(channel + d) * 9 + tap]);
      taps[9 * padded + d] = widen(attention.bias[channel + d]);
    }
    for (int64_t p = 0; p < pixels; p += kQueries) {
      for (int q = 0; q < kQueries; ++q) {
        const T* const query = attention.query + (first + std::min(p + q, pixels - 1)) * stride + channel;
        for (int64_t d = 0; d < depth; ++d) queries[q * depth + d] = widen(query[d]) * scale;
      }
      multiply_columns<V>(queries, depth, keys, columns, depth, scores);
      A factors[kQueries];
      for (int q = 0; q < kQueries; ++q) factors[q] = exponentials<V>(scores + q * columns, pixels);
      multiply_columns<V>(scores, columns, values, padded, pixels, sums);
      for (int64_t q = 0; q < std::min<int64_t>(kQueries, pixels - p); ++q) {
        const int64_t y = (p + q) / width, x = (p + q) % width;
        const int64_t top = std::max<int64_t>(y - 1, 0), bottom = std::min(y + 1, attention.height - 1);
        const int64_t left = std::max<int64_t>(x - 1, 0), right = std::min(x + 1, width - 1);
        T* const out = output + (first + p + q) * stride + channel;
        each_vector<V>(depth, [&](int64_t d, int count) {
          V total = fma(V::load(sums + q * padded + d), V::splat(factors[q]), V::load(taps + 9 * padded + d));
          for (int64_t row = top; row <= bottom; ++row)
            for (int64_t column = left; column <= right; ++column)
              total = fma(V::load(values + (row * width + column) * padded + d),
                          V::load(taps + ((row - y + 1) * 3 + column - x + 1) * padded + d), total);
          store(total, out + d, count);
        });
      }
    }
  }
}

}  // namespace fused_layers::CPU_PATH
