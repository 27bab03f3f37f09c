// Between tensors of any layout and type and what is computed on: pixels of V::size channels, row by row.
#pragma once

#include <algorithm>

#include "channel_lanes.h"
#include "common/transpose.h"

namespace large_kernel_conv::CPU_PATH {

// Call f(first number, pixels) for the rows [first, last): once where they follow each other like pixels.
template <typename T, typename F>
ALWAYS_INLINE void for_rows(const View<T>& view, int64_t first, int64_t last, int64_t width, F f) {
  if (view.row == width * view.column)
    f(view.data + first * view.row, (last - first) * width);
  else
    for (int64_t r = first; r < last; ++r) f(view.data + r * view.row, width);
}

// Rows [first, last) of one channel block of an image; `view` starts at the block. Missing channels become zero.
template <class V, typename T>
void pack(const View<const T>& view, int64_t channels, int64_t first, int64_t last, int64_t width,
          typename V::Scalar* out) {
  constexpr int N = V::size;
  if (view.channel == 1 && channels < N) memset(out, 0, (last - first) * width * N * sizeof(*out));
  for_rows(view, first, last, width, [&](const T* in, int64_t pixels) {
    if (view.channel == 1 && channels == N) {
      for (int64_t x = 0; x < pixels; ++x)
        for (int c = 0; c < N; ++c) out[x * N + c] = widen(in[x * view.column + c]);
    } else if (view.channel == 1) {
      for (int64_t x = 0; x < pixels; ++x)
        for (int64_t c = 0; c < channels; ++c) out[x * N + c] = widen(in[x * view.column + c]);
    } else {
      alignas(64) typename V::Scalar rows[N][N] = {};
      for (int64_t start = 0; start < pixels; start += N) {
        const int64_t count = std::min<int64_t>(N, pixels - start);
        for (int64_t c = 0; c < channels; ++c) {
          const T* row = in + c * view.channel + start * view.column;
          if (view.column == 1 && count == N)
            for (int x = 0; x < N; ++x) rows[c][x] = widen(row[x]);
          else
            for (int64_t x = 0; x < count; ++x) rows[c][x] = widen(row[x * view.column]);
        }
        transpose<N>(rows[0], N, out + start * N, count);
      }
    }
    out += pixels * N;
  });
}

// What correlate() takes of an image and of a kernel; whether it can take them
template <class V, typename T>
bool pack_image(const View<const T>& view, int64_t channels, int64_t first, int64_t last, int64_t width,
                typename V::Scalar* out) {
  pack<V>(view, channels, first, last, width, out);
  return true;
}
template <class V, typename T>
bool pack_kernel(const View<const T>& view, int64_t channels, int64_t first, int64_t last, int64_t width,
                 typename V::Scalar* out) {
  pack<V>(view, channels, first, last, width, out);
  return true;
}

// The same way back
template <class V, typename T>
void unpack(const typename V::Scalar* in, const View<T>& view, int64_t channels, int64_t first, int64_t last,
            int64_t width) {
  constexpr int N = V::size, kPixels = 16;
  for_rows(view, first, last, width, [&](T* out, int64_t pixels) {
    if (view.channel == 1 && channels == N) {
      for (int64_t x = 0; x < pixels; ++x)
        for (int c = 0; c < N; ++c) narrow(in[x * N + c], out[x * view.column + c]);
    } else {
      for (int64_t start = 0; start < pixels; start += kPixels) {
        const int64_t count = std::min<int64_t>(kPixels, pixels - start);
        T narrowed[kPixels * N];  // apart, because the conversion takes all channels of a pixel at once
        for (int64_t i = 0; i < count * N; ++i) narrow(in[start * N + i], narrowed[i]);
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t x = 0; x < count; ++x) out[c * view.channel + (start + x) * view.column] = narrowed[x * N + c];
      }
    }
    in += pixels * N;
  });
}

}  // namespace large_kernel_conv::CPU_PATH
