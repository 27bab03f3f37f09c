// A depthwise 3x3 convolution, LayerNorm and GELU: the sums of some pixels stay in the first-level cache until they are
// normalised, and are rounded once, at the end.
#pragma once

#include <algorithm>

#include "common/buffer.h"
#include "gelu.h"

namespace fused_layers::CPU_PATH {

// Convolves pixels [left, right) of a row for the channels of one vector. The pixels above, beside and below are walked
// from the left, and each is added to the three outputs that it reaches, so that it is loaded once.
template <typename T>
ALWAYS_INLINE void convolve(const Depthwise<T>& conv, const T* const (&rows)[3], const int64_t (&strides)[3],
                            int64_t left, int64_t right, int64_t channel, int count, Compute<T>* sums) {
  using V = Vector<T>;
  V kernel[3][3], before, here, after;  // `before` is the output left of the pixel that is added
  for (int y = 0; y < 3; ++y)
    for (int x = 0; x < 3; ++x) kernel[y][x] = load<V>(conv.kernel + (y * 3 + x) * conv.channels + channel, count);
  const V bias = load<V>(conv.bias + channel, count);
  const auto add = [&](int64_t column) {
    for (int y = 0; y < 3; ++y) {
      const V pixel = load<V>(rows[y] + column * strides[y] + channel, count);
      before = fma(pixel, kernel[y][2], before);
      here = fma(pixel, kernel[y][1], here);
      after = fma(pixel, kernel[y][0], after);
    }
  };
  before = here = after = bias;
  if (left > 0) add(left - 1);
  here = after, after = bias;
  for (int64_t column = left; column < right; ++column) {
    add(column);
    if (column > left) store(before, sums + (column - 1 - left) * conv.channels + channel, count);
    before = here, here = after, after = bias;
  }
  if (right < conv.width) add(right);
  store(before, sums + (right - 1 - left) * conv.channels + channel, count);
}

template <typename T>
void depthwise_norm_gelu(const Depthwise<T>& conv, const Norm<T>& norm, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  using A = Compute<T>;
  constexpr int64_t kNumbers = 4096;  // in float32 half of the smallest first-level cache
  const int64_t tile = std::min(conv.width, std::max<int64_t>(4, kNumbers / conv.channels));
  const int64_t row_stride = conv.width * conv.channels;
  Buffer<A> buffer;
  const Gelu<T> gelu_of;
  const Parameters<T> parameters(norm);
  A* const sums = buffer.at_least(tile * conv.channels);
  for (int64_t r = begin; r < end; ++r) {
    const int64_t row = r % conv.height;
    const T* const middle = conv.input + r * row_stride;
    const bool above = row > 0, below = row + 1 < conv.height;
    const T* const rows[3] = {above ? middle - row_stride : conv.zeros, middle,
                              below ? middle + row_stride : conv.zeros};
    const int64_t strides[3] = {above ? conv.channels : 0, conv.channels, below ? conv.channels : 0};
    for (int64_t left = 0; left < conv.width; left += tile) {
      const int64_t right = std::min(conv.width, left + tile);
      each_vector<V>(conv.channels, [&](int64_t c, int count) {
        convolve(conv, rows, strides, left, right, c, count, sums);
      });
      normalize(
          norm, parameters, left, right, [&](int64_t column) { return sums + (column - left) * conv.channels; },
          [&](int64_t column, int64_t c, int count, const V& value) {
            store(gelu_of(value), output + r * row_stride + column * conv.channels + c, count);
          });
    }
  }
}

}  // namespace fused_layers::CPU_PATH
