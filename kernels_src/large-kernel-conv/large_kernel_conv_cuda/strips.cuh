// The arithmetic without tensor cores: a thread computes a strip of a correlation,
//
//   out[i][j] += sum over (a, b) of kernel[a][b] * image[i + a - pad_row][j + b - pad_column].
//
// The convolution correlates the input with the weight; the gradient of the weight is the correlation of the input with
// the gradient of the output. A strip's outputs stay in registers, and each number read from shared memory serves as
// many of them as it can.
#pragma once

#include "staging.cuh"

namespace large_kernel_conv {

// A multiple of the rows of an odd stride is odd too: neighbouring threads, whose strips lie below each other, read
// their rows from different banks.
constexpr int kStripRows = 3, kStripColumns = 8;

__host__ __device__ inline int strips_of(int rows, int columns) {
  return ceil_div(rows, kStripRows) * ceil_div(columns, kStripColumns);
}

template <typename T>
struct Correlation {
  Planes<const T> images;   // of the region; column 0 of the region lies at column `shift`, all others hold zeros
  Region region;            // of the image
  Planes<const T> kernels;  // kernel row 0 lies at row kStripRows - 1; zeros around
  int kernel_rows, pad_row, pad_column;

  // so that the pixels under four kernel columns are aligned, as the kernel columns are
  __host__ __device__ static int shift(int pad_column) { return pad_column & 3; }

  __device__ void add_strip(int channel, int row, int column, T (&total)[kStripRows][kStripColumns]) const {
    const int first = max(region.row, row - pad_row);
    const int last = min(region.row + region.rows, row + kStripRows - 1 + kernel_rows - pad_row);
    // In fours of columns: where the pixels of kernel column 0 lie, and the kernel columns that meet some of the plane
    const int quads = images.extent.stride / 4, kernel_quads = kernels.extent.stride / 4;
    const int start = (column - pad_column - region.column + shift(pad_column)) >> 2;
    const int begin = max(0, -start - 2), end = min(kernel_quads, quads - start);
    for (int r = first; r < last; ++r) {
      const T* const pixels = images.at(channel, r - region.row, 0);
      const T* const weights = kernels.at(channel, r - row + pad_row + kStripRows - 1, 0);
      T window[kStripColumns + 4];  // of pixels
      load_quad(pixels, start + begin, quads, window);
      load_quad(pixels, start + begin + 1, quads, window + 4);
#pragma unroll 3
      for (int quad = begin; quad < end; ++quad) {
        load_quad(pixels, start + quad + 2, quads, window + 8);
#pragma unroll
        for (int i = 0; i < kStripRows; ++i) {
          const auto four = Pack<T, 4>::load(weights - i * kernels.extent.stride + 4 * quad);
#pragma unroll
          for (int b = 0; b < 4; ++b)
#pragma unroll
            for (int t = 0; t < kStripColumns; ++t) total[i][t] = fma(four.values[b], window[t + b], total[i][t]);
        }
#pragma unroll
        for (int t = 0; t < kStripColumns; ++t) window[t] = window[t + 4];
      }
    }
  }

  static __device__ void load_quad(const T* row, int quad, int quads, T* to) {
    Pack<T, 4> pack{};
    if (unsigned(quad) < unsigned(quads)) pack = Pack<T, 4>::load(row + 4 * quad);
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = pack.values[i];
  }
};

}  // namespace large_kernel_conv
