// The arithmetic: every operator here is a correlation of packed pixels,
//
//   out[i][j] += sum over (a, b) of kernel[a][b] * in[i + a - pad_height][j + b - pad_width],
//
// in which only pixels inside the image take part. The convolution correlates the input with the weight; the gradient
// of the weight is the correlation of the input with the gradient of the output.
//
// Where an element holds several neighbouring taps (V::kTaps), its columns are those of the kernel divided by their
// number, and pixels are wanted in steps of it: in[i + a - pad_height][j + kTaps * b - pad_width].
//
// A tile of R x T outputs stays in registers: each weight is loaded once for T outputs, each pixel for R. An output's
// sum runs over rows, then columns, whatever tile it lies in.
#pragma once

#include <algorithm>

#include "channel_lanes.h"

namespace large_kernel_conv::CPU_PATH {

template <class V>
struct Correlation {
  const typename V::Element* in;  // rows [in_first, in_last), those that take part
  int64_t in_first, in_last, in_width;
  const typename V::Element* kernel;
  int64_t kernel_height, kernel_width;
  typename V::Scalar* out;  // rows [out_first, out_last)
  int64_t out_first, out_last, out_width;
  int64_t pad_height, pad_width;
};

// One row of pixels, and its part in a tile
template <class V>
struct Row {
  const typename V::Element* pixels;  // the pixel under the tile's first output at kernel column 0
  const typename V::Element* kernel;  // the kernel's row for the tile's first output row; the next needs the one before
  int64_t kernel_step;                // elements in a row of the kernel
  int begin, end;                     // the output rows of the tile that it has part in
};

// Kernel column b, for the outputs [kBegin, kEnd) of each row of the tile
template <int kBegin, int kEnd, bool kAllRows, class V, int R, int T>
ALWAYS_INLINE void add_tap(V (&total)[R][T], const Row<V>& row, int64_t b) {
  using Factor = typename V::Factor;
  const auto* pixels = row.pixels + b * V::kTaps * V::size;
  const auto* kernel = row.kernel + b * V::size;
  if constexpr (kAllRows) {
    Factor weight[R];
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) weight[i] = Factor::load(kernel - i * row.kernel_step);
#pragma GCC unroll 16
    for (int t = kBegin; t < kEnd; ++t) {
      const Factor pixel = Factor::load(pixels + t * V::size);
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) total[i][t].add_product(pixel, weight[i]);
    }
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      if (i < row.begin || i >= row.end) continue;
      const Factor weight = Factor::load(kernel - i * row.kernel_step);
#pragma GCC unroll 16
      for (int t = kBegin; t < kEnd; ++t) total[i][t].add_product(Factor::load(pixels + t * V::size), weight);
    }
  }
}

// Kernel columns that leave the image on the left for the first S outputs, and those after them; on the right likewise.
// Column b meets pixels of the image for all outputs from b * kTaps = left to b * kTaps = right.
template <int S, bool kAllRows, class V, int R, int T>
ALWAYS_INLINE void add_left_taps(V (&total)[R][T], const Row<V>& row, int64_t left, int64_t columns) {
  if constexpr (S > 0) {
    const int64_t b = (left - S) / V::kTaps;
    if (left >= S && b * V::kTaps == left - S && b < columns) add_tap<S, T, kAllRows>(total, row, b);
    add_left_taps<S - 1, kAllRows>(total, row, left, columns);
  }
}
template <int S, bool kAllRows, class V, int R, int T>
ALWAYS_INLINE void add_right_taps(V (&total)[R][T], const Row<V>& row, int64_t right, int64_t columns) {
  if constexpr (S < T) {
    const int64_t b = (right + S) / V::kTaps;
    if (right >= -S && b * V::kTaps == right + S && b < columns) add_tap<0, T - S, kAllRows>(total, row, b);
    add_right_taps<S + 1, kAllRows>(total, row, right, columns);
  }
}

template <bool kAllRows, class V, int R, int T>
ALWAYS_INLINE void add_row(V (&total)[R][T], const Row<V>& row, int64_t left, int64_t right, int64_t columns) {
  if (left > 0) add_left_taps<T - 1, kAllRows>(total, row, left, columns);
  const int64_t end = right < 0 ? 0 : std::min(right / V::kTaps + 1, columns);
  for (int64_t b = left > 0 ? (left + V::kTaps - 1) / V::kTaps : 0; b < end; ++b)
    add_tap<0, T, kAllRows>(total, row, b);
  if (right < (columns - 1) * V::kTaps) add_right_taps<1, kAllRows>(total, row, right, columns);
}

// The outputs of rows i0 .. i0 + R and columns j0 .. j0 + T; needs T <= in_width
template <class V, int R, int T>
__attribute__((noinline)) void add_tile(const Correlation<V>& c, int64_t i0, int64_t j0) {
  V total[R][T];
  for (auto& row : total)
    for (V& part : row) part = V::zero();
  const int64_t left = c.pad_width - j0, right = left + c.in_width - T;
  const int64_t top = i0 - c.pad_height;  // the row of pixels that meets kernel row 0 for output row i0
  const int64_t last = std::min(c.in_last, top + R - 1 + c.kernel_height);
  for (int64_t r = std::max(c.in_first, top); r < last; ++r) {
    const int64_t a = r - top, step = c.kernel_width * V::size;
    const Row<V> row{c.in + ((r - c.in_first) * c.in_width - left) * V::size, c.kernel + a * step, step,
                     int(std::max<int64_t>(0, a - c.kernel_height + 1)), int(std::min<int64_t>(R, a + 1))};
    if (row.begin == 0 && row.end == R)
      add_row<true>(total, row, left, right, c.kernel_width);
    else
      add_row<false>(total, row, left, right, c.kernel_width);
  }
  for (int i = 0; i < R; ++i) {
    auto* out = c.out + ((i0 + i - c.out_first) * c.out_width + j0) * V::size;
    for (int t = 0; t < T; ++t) {
      V sum = V::load(out + t * V::size);
      sum.add(total[i][t]);
      sum.store(out + t * V::size);
    }
  }
}

template <class V, int R, int T>
void add_tile_of(int rows, int columns, const Correlation<V>& c, int64_t i0, int64_t j0) {
  if constexpr (R > 1)
    if (rows < R) return add_tile_of<V, R - 1, T>(rows, columns, c, i0, j0);
  if constexpr (T > 1)
    if (columns < T) return add_tile_of<V, R, T - 1>(rows, columns, c, i0, j0);
  add_tile<V, R, T>(c, i0, j0);
}

// Call f(begin, size) for parts of [begin, end) that differ in size by one at most
template <typename F>
ALWAYS_INLINE void for_even_parts(int64_t begin, int64_t end, int64_t largest, F f) {
  for (int64_t parts = (end - begin + largest - 1) / largest; parts > 0; --parts) {
    const int64_t size = (end - begin + parts - 1) / parts;
    f(begin, int(size));
    begin += size;
  }
}

template <class V>
void correlate(const Correlation<V>& c) {
  const int64_t columns = std::min<int64_t>(V::kColumns, c.in_width);
  for_even_parts(c.out_first, c.out_last, V::kRows, [&](int64_t i, int rows) {
    for_even_parts(0, c.out_width, columns,
                   [&](int64_t j, int width) { add_tile_of<V, V::kRows, V::kColumns>(rows, width, c, i, j); });
  });
}

}  // namespace large_kernel_conv::CPU_PATH
