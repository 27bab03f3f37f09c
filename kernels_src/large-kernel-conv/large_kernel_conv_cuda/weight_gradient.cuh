// The gradient of the weight. A block adds up some of it, for some channels, over its split of the tiles of all images;
// what the splits have is added up afterwards. So each sum has one order, and needs no atomics.
#pragma once

#include "strips.cuh"

namespace large_kernel_conv {

// The tiles [begin, end) of all images that one split has
struct Split {
  int64_t begin, end;
  __device__ Split(const Tiling& size, int split, int splits)
      : begin(size.batch_tiles() * split / splits), end(size.batch_tiles() * (split + 1) / splits) {}
};

// Part of one number of the gradient from the pixels inside the image only, as exact_output: over the pixels of the
// split that are [first, last) steps of 16 columns from their pixel of the input.
template <typename T>
__device__ Compute<T> exact_gradient(const WeightGradient<T>& p, int split, int channel, int a, int b, int first,
                                     int last) {
  const Tiling& size = p.size;
  Compute<T> total = 0;
  const Split range(size, split, p.splits);
  for (int64_t index = range.begin; index < range.end; ++index) {
    const Region tile = size.tile(int(index % size.tiles()));
    const int64_t image = index / size.tiles();
    for (int i = 0; i < tile.rows * tile.columns; ++i) {
      const int row = tile.row + i / tile.columns, column = tile.column + i % tile.columns;
      const int y = row + a - size.pad_height(), x = column + b - size.pad_width();
      const int step = (x >> 4) - (column >> 4);
      if (y < 0 || y >= size.height || x < 0 || x >= size.width || step < first || step >= last) continue;
      total =
          fma(widen(*p.grad_output.at(image, channel, row, column)), widen(*p.input.at(image, channel, y, x)), total);
    }
  }
  return total;
}

// What a block does. Blocks differ in the chunk of channels, then in the part of the gradient, then in the split.
struct GradientBlock {
  int channel, channels;  // first one and number
  int part, split;

  __device__ GradientBlock(const Tiling& size, int parts) {
    const int rest = blockIdx.x / size.chunks();
    channel = int(blockIdx.x % size.chunks()) * size.chunk;
    channels = min(size.chunk, size.channels - channel);
    part = rest % parts, split = rest / parts;
  }
};

// On CUDA cores: a thread has one strip of the gradient, for which the gradient of the output is the kernel. Shared
// memory: planes of the input, of the gradient of the output.
template <typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocksPerMultiprocessor<T>)
    differentiate_on_cuda_cores(WeightGradient<T> p) {
  const Tiling& size = p.size;
  const int strips = strips_of(size.kernel_height, size.kernel_width), down = ceil_div(size.kernel_height, kStripRows);
  const GradientBlock block(size, ceil_div(strips * size.chunk, blockDim.x));
  const int pad_row = size.pad_height(), pad_column = size.pad_width(), shift = Correlation<T>::shift(pad_column);
  const Planes<T> in{reinterpret_cast<T*>(shared_memory()), p.in}, out{in.at(size.chunk, 0, 0), p.out};
  const int strip = block.part * blockDim.x + threadIdx.x, c = strip / strips;
  const int row = strip % down * kStripRows, column = strip % strips / down * kStripColumns;
  T total[kStripRows][kStripColumns] = {};
  const Split range(size, block.split, p.splits);
  for (int64_t index = range.begin; index < range.end; ++index) {
    const Region tile = size.tile(int(index % size.tiles())), region = size.around(tile, pad_row, pad_row);
    __syncthreads();
    clear(in.data, int((out.at(size.chunk, 0, 0) - in.data) * sizeof(T)));
    __syncthreads();
    load_tile(p.input, index / size.tiles(), block.channel, block.channels, region, Planes<T>{in.data + shift, p.in});
    load_tile(p.grad_output, index / size.tiles(), block.channel, block.channels, tile,
              Planes<T>{out.at(0, kStripRows - 1, 0), p.out});
    __syncthreads();
    const Correlation<T> correlation{{in.data, p.in},         region, {out.data, p.out}, tile.rows, pad_row - tile.row,
                                     pad_column - tile.column};
    if (c < block.channels) correlation.add_strip(c, row, column, total);
  }
  if (c >= block.channels) return;
#pragma unroll
  for (int i = 0; i < kStripRows; ++i)
#pragma unroll
    for (int t = 0; t < kStripColumns; ++t)
      if (row + i < size.kernel_height && column + t < size.kernel_width)
        *p.sum(block.split, block.channel + c, row + i, column + t) = total[i][t];
  for (int i = 0; i < kStripRows * kStripColumns; ++i) {
    const int a = row + i / kStripColumns, b = column + i % kStripColumns;
    if (a >= size.kernel_height || b >= size.kernel_width) continue;
    T& sum = *p.sum(block.split, block.channel + c, a, b);
    if (sum != sum) sum = exact_gradient(p, block.split, block.channel + c, a, b, -size.width, size.width);
  }
}

// On tensor cores: the product of the columns of the input with those of the gradient of the output,
//
//   product[a][x', x] = sum over (n, y) of in[n, y + a - pad_height, x'] * grad_output[n, y, x],
//
// whose diagonals x' - x = b - pad_width add up to the gradient of kernel[a, b]. All pairs of 16 columns x' and 16
// columns x that are as many steps of 16 apart are added to one matrix. A warp has kWarpKernelRows kernel rows and
// kStepsOfPart such steps of one channel: for kernels up to 33 columns wide these are all.
constexpr int kWarpKernelRows = 3, kStepsOfPart = 3;

struct ColumnSteps {
  int most;  // how far apart columns are, at most
  __host__ __device__ explicit ColumnSteps(int kernel_width) : most(ceil_div(kernel_width / 2, 16)) {}
  __host__ __device__ int parts() const { return ceil_div(2 * most + 1, kStepsOfPart); }
  __host__ __device__ int first(int part) const { return part * kStepsOfPart - most; }
};

// The rows of a part of the kernel: as many as the block's warps have
__host__ __device__ inline int kernel_rows_of_part(int chunk) { return kWarps / chunk * kWarpKernelRows; }

// Shared memory: a row of zeros, planes of the input, of the gradient of the output; in the end, a warp's products for
// one kernel row.
template <typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocksPerMultiprocessor<T>)
    differentiate_on_tensor_cores(WeightGradient<T> p) {
  const Tiling& size = p.size;
  const ColumnSteps steps(size.kernel_width);
  const int kernel_rows = kernel_rows_of_part(size.chunk), row_parts = ceil_div(size.kernel_height, kernel_rows);
  const GradientBlock block(size, row_parts * steps.parts());
  const int column_part = block.part / row_parts, first_step = steps.first(column_part);
  const int block_row = block.part % row_parts * kernel_rows;
  const int last_row = min(size.kernel_height, block_row + kernel_rows) - 1;
  T* const zeros = reinterpret_cast<T*>(shared_memory());
  const int zero_elements = max(p.in.stride, p.out.stride);
  const Planes<T> in{zeros + zero_elements, p.in}, out{in.at(size.chunk, 0, 0), p.out};
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int c = warp % size.chunk, warp_row = block_row + warp / size.chunk * kWarpKernelRows;
  const bool active = c < block.channels && warp_row < size.kernel_height;

  float total[kWarpKernelRows][kStepsOfPart][2][4] = {};
  const Split range(size, block.split, p.splits);
  for (int64_t index = range.begin; index < range.end; ++index) {
    const Region tile = size.tile(int(index % size.tiles()));
    const Region region = size.around(tile, size.pad_height() - block_row, last_row - size.pad_height());
    __syncthreads();
    clear(zeros, int((out.at(size.chunk, 0, 0) - zeros) * sizeof(T)));
    __syncthreads();
    load_tile(p.input, index / size.tiles(), block.channel, block.channels, region, in);
    load_tile(p.grad_output, index / size.tiles(), block.channel, block.channels, tile, out);
    __syncthreads();
    if (!active) continue;
    for (int y = 0; y < tile.rows; y += 16) {
      const int out_row = y + lane % 16;
      const T* const gradients = (out_row < tile.rows ? out.at(c, out_row, 0) : zeros) + lane / 16 * 8;
      const T* pixels[kWarpKernelRows];
#pragma unroll
      for (int a = 0; a < kWarpKernelRows; ++a) {
        const int row = tile.row + y + lane % 8 + lane / 16 * 8 + warp_row + a - size.pad_height() - region.row;
        pixels[a] = (unsigned(row) < unsigned(region.rows) ? in.at(c, row, 0) : zeros) + lane / 8 % 2 * 8;
      }
      for (int x = 0; x < tile.columns; x += 16) {
        uint32_t both[4];
        ldmatrix<true>(both, gradients + x);
        const uint32_t gradient[2][2] = {{both[0], both[1]}, {both[2], both[3]}};
#pragma unroll
        for (int step = 0; step < kStepsOfPart; ++step) {
          const int column = tile.column + x + 16 * (first_step + step) - region.column;
          if (column < 0 || column >= region.columns || first_step + step > steps.most) continue;
#pragma unroll
          for (int a = 0; a < kWarpKernelRows; ++a) {
            if (warp_row + a >= size.kernel_height) continue;
            uint32_t pixel[4];
            ldmatrix<true>(pixel, pixels[a] + column);
            mma<T>(total[a][step][0], pixel, gradient[0]);
            mma<T>(total[a][step][1], pixel, gradient[1]);
          }
        }
      }
    }
  }

  // Products [step][16 x'][16 x], which the diagonals are read from
  __syncthreads();
  float* const products = reinterpret_cast<float*>(shared_memory()) + warp * kStepsOfPart * 256;
#pragma unroll
  for (int a = 0; a < kWarpKernelRows; ++a) {
    if (!active || warp_row + a >= size.kernel_height) break;
    __syncwarp();
#pragma unroll
    for (int step = 0; step < kStepsOfPart; ++step)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          products[(step * 16 + lane / 4 + i / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + i % 2] = total[a][step][half][i];
    __syncwarp();
    for (int b = lane; b < size.kernel_width; b += kWarpSize) {
      float sum = 0;
      for (int x = 0; x < 16; ++x) {
        const int distance = x + b - size.pad_width() - 16 * first_step;  // of x' from the first step's first column
        if (distance >= 0 && distance < 16 * kStepsOfPart) sum += products[distance * 16 + x];
      }
      if (sum != sum)
        sum = exact_gradient(p, block.split, block.channel + c, warp_row + a, b, first_step, first_step + kStepsOfPart);
      *p.sum(block.split * steps.parts() + column_part, block.channel + c, warp_row + a, b) = sum;
    }
  }
}

}  // namespace large_kernel_conv
