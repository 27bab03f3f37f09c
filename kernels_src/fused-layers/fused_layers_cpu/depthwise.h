// A depthwise 3x3 convolution with GELU. With LayerNorm between them, the sums of some pixels stay in the first-level
// cache until they are normalised. All is rounded once, at the end.
#pragma once

#include <algorithm>

#include "common/buffer.h"
#include "gelu.h"

namespace fused_layers::CPU_PATH {

// The image rows above, at and below an output row; outside the image one pixel of zeros with a stride of 0.
template <typename T>
struct Rows {
  const T* row[3];
  int64_t stride[3];
  Rows(const Depthwise<T>& conv, int64_t r) {  // row r of the whole batch
    for (int y = 0; y < 3; ++y) {
      const int64_t place = r % conv.height + y - 1;
      const bool inside = place >= 0 && place < conv.height;
      row[y] = inside ? conv.input + (r + y - 1) * conv.width * conv.channels : conv.zeros;
      stride[y] = inside ? conv.channels : 0;
    }
  }
};

// Convolves pixels [left, right) of a row for the channels of one vector, and hands the sums to finish(column, sum). The
// pixels above, beside and below are walked from the left, and each is added to the three outputs that it reaches, so
// that it is loaded once.
template <typename T, typename F>
ALWAYS_INLINE void convolve(const Depthwise<T>& conv, const Rows<T>& rows, int64_t left, int64_t right,
                            int64_t channel, int count, F finish) {
  using V = Vector<T>;
  V kernel[3][3], before, here, after;  // `before` is the output left of the pixel that is added
  for (int y = 0; y < 3; ++y)
    for (int x = 0; x < 3; ++x) kernel[y][x] = load<V>(conv.kernel + (y * 3 + x) * conv.channels + channel, count);
  const V bias = load<V>(conv.bias + channel, count);
  const auto add = [&](int64_t column) {
    for (int y = 0; y < 3; ++y) {
      const V pixel = load<V>(rows.row[y] + column * rows.stride[y] + channel, count);
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
    if (column > left) finish(column - 1, before);
    before = here, here = after, after = bias;
  }
  if (right < conv.width) add(right);
  finish(right - 1, before);
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
    const Rows<T> rows(conv, r);
    for (int64_t left = 0; left < conv.width; left += tile) {
      const int64_t right = std::min(conv.width, left + tile);
      each_vector<V>(conv.channels, [&](int64_t c, int count) {
        convolve(conv, rows, left, right, c, count, [&](int64_t column, const V& sum) {
          store(sum, sums + (column - left) * conv.channels + c, count);
        });
      });
      normalize(
          norm, parameters, left, right, [&](int64_t column) { return sums + (column - left) * conv.channels; },
          [&](int64_t column, int64_t c, int count, const V& value) {
            store(gelu_of(value), output + r * row_stride + column * conv.channels + c, count);
          });
    }
  }
}

template <typename T>
void add_depthwise_gelu(const Depthwise<T>& conv, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  const Gelu<T> gelu_of;
  const int64_t row_stride = conv.width * conv.channels;
  for (int64_t r = begin; r < end; ++r) {
    const Rows<T> rows(conv, r);
    const T* const input = conv.input + r * row_stride;
    T* const out = output + r * row_stride;
    each_vector<V>(conv.channels, [&](int64_t c, int count) {
      convolve(conv, rows, 0, conv.width, c, count, [&](int64_t column, const V& sum) {
        const int64_t place = column * conv.channels + c;
        store(gelu_of(load<V>(input + place, count) + sum), out + place, count);
      });
    });
  }
}

}  // namespace fused_layers::CPU_PATH
