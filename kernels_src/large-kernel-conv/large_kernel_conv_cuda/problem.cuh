// What the tensor-facing code hands to the kernels: plain numbers and pointers, passed by value.
#pragma once

#include "device.cuh"

namespace large_kernel_conv {

// A tensor (N, C, H, W), read or written `pack` numbers at a time: of neighbouring channels, or of neighbouring columns
template <typename T>
struct Packed {
  View<T> view;
  int pack;
  bool by_channel;

  __host__ __device__ T* at(int64_t image, int channel, int row, int column) const {
    return view.data + image * view.image + channel * view.channel + row * view.row + column * view.column;
  }
};

// A rectangle of an image, inside it
struct Region {
  int row, rows, column, columns;
};

// How images are cut: a tile is `tile_rows` x `tile_columns` pixels of `chunk` channels. Its columns begin at a
// multiple of 16.
struct Tiling {
  int64_t batch;
  int channels, height, width, kernel_height, kernel_width;
  int chunk, tile_rows, tile_columns;

  __host__ __device__ int pad_height() const { return kernel_height / 2; }
  __host__ __device__ int pad_width() const { return kernel_width / 2; }
  __host__ __device__ int chunks() const { return ceil_div(channels, chunk); }
  __host__ __device__ int tiles() const { return ceil_div(height, tile_rows) * ceil_div(width, tile_columns); }
  __host__ __device__ int64_t batch_tiles() const { return batch * tiles(); }  // of all images

  __device__ Region tile(int index) const {
    const int across = ceil_div(width, tile_columns);
    const int row = index / across * tile_rows, column = index % across * tile_columns;
    return {row, min(tile_rows, height - row), column, min(tile_columns, width - column)};
  }

  // The tile and what lies around it in the image: rows above and below (negative: fewer), and columns for the kernel's
  // width, from a multiple of 16 to another or to the image's end.
  __device__ Region around(const Region& tile, int above, int below) const {
    const int top = max(0, tile.row - above), bottom = min(height, tile.row + tile.rows + below);
    const int left = max(0, tile.column - pad_width()) / 16 * 16;
    const int right = min(width, round_up(tile.column + tile.columns + pad_width(), 16));
    return {top, max(0, bottom - top), left, right - left};
  }
  // The most columns that `around` has, as a multiple of 16
  __host__ int most_columns_around() const {
    const int most = tile_columns + 2 * round_up(pad_width(), 16), all = round_up(width, 16);
    return most < all ? most : all;
  }
  __host__ int most_rows_around(int more) const { return tile_rows + more < height ? tile_rows + more : height; }
};

// Rows in shared memory and elements from one to the next, for input, output or its gradient
struct Extent {
  int rows, stride;
  __host__ __device__ int elements() const { return rows * stride; }
};

template <typename T>
struct Convolution {
  Tiling size;
  Packed<const T> input;
  View<const T> weight;
  const T* bias;  // null for none
  Packed<T> output;
  Extent in, out, kernel;  // in shared memory
};

// Each of the splits adds up its share of the tiles, in `sums` of its own: (splits, parts of columns, C, KH, KW).
template <typename T>
struct WeightGradient {
  Tiling size;
  Packed<const T> grad_output, input;
  Compute<T>* sums;
  Extent in, out;  // in shared memory, of input and of the gradient of the output
  int splits;

  __device__ Compute<T>* sum(int64_t part, int channel, int row, int column) const {
    return sums + ((part * size.channels + channel) * size.kernel_height + row) * size.kernel_width + column;
  }
};

}  // namespace large_kernel_conv
