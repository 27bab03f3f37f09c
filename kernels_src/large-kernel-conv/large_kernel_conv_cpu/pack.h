// Between tensors of any layout and type and what is computed on: pixels of V::size channels, row by row.
#pragma once

#include "lanes.h"

namespace large_kernel_conv::LARGE_KERNEL_CONV_PATH {

// Rows [first, last) of one channel block of an image; `view` starts at the block. Missing channels become zero.
template <class V, typename T>
void pack(const View<const T>& view, int64_t channels, int64_t first, int64_t last, int64_t width,
          typename V::Scalar* out) {
  constexpr int N = V::size;
  if (channels < N) memset(out, 0, (last - first) * width * N * sizeof(*out));
  for (int64_t r = first; r < last; ++r, out += width * N) {
    const T* row = view.data + r * view.row;
    if (view.channel == 1 && channels == N) {
      for (int64_t x = 0; x < width; ++x)
        for (int c = 0; c < N; ++c) out[x * N + c] = widen(row[x * view.column + c]);
    } else {
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t x = 0; x < width; ++x) out[x * N + c] = widen(row[c * view.channel + x * view.column]);
    }
  }
}

// The same way back
template <class V, typename T>
void unpack(const typename V::Scalar* in, const View<T>& view, int64_t channels, int64_t first, int64_t last,
            int64_t width) {
  constexpr int N = V::size;
  for (int64_t r = first; r < last; ++r, in += width * N) {
    T* row = view.data + r * view.row;
    if (view.channel == 1 && channels == N) {
      for (int64_t x = 0; x < width; ++x)
        for (int c = 0; c < N; ++c) narrow(in[x * N + c], row[x * view.column + c]);
    } else {
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t x = 0; x < width; ++x) narrow(in[x * N + c], row[c * view.channel + x * view.column]);
    }
  }
}

}  // namespace large_kernel_conv::LARGE_KERNEL_CONV_PATH
