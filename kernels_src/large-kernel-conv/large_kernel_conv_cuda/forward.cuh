// The convolution. A block computes one tile of some channels of one image.
#pragma once

#include "strips.cuh"

namespace large_kernel_conv {

// One output from the pixels inside the image only, tap by tap. The kernels multiply zeros too, those around the image
// and those of their matrices: with numbers that are not finite that is NaN, and an output that is NaN comes here.
template <typename T>
__device__ Compute<T> exact_output(const Convolution<T>& p, int64_t image, int channel, int row, int column) {
  using A = Compute<T>;
  A total = 0;
  for (int a = 0; a < p.size.kernel_height; ++a) {
    const int y = row + a - p.size.pad_height();
    if (y < 0 || y >= p.size.height) continue;
    for (int b = 0; b < p.size.kernel_width; ++b) {
      const int x = column + b - p.size.pad_width();
      if (x < 0 || x >= p.size.width) continue;
      const T weight = p.weight.data[channel * p.weight.channel + a * p.weight.row + b * p.weight.column];
      total = fma(widen(weight), widen(*p.input.at(image, channel, y, x)), total);
    }
  }
  return p.bias ? total + widen(p.bias[channel]) : total;
}

// What a block does, and the end that all blocks have in common
template <typename T>
struct ConvolutionBlock {
  const Convolution<T>& p;
  int channel, channels;  // first one and number
  int64_t image;
  Region tile, region;  // outputs, and the inputs they need

  __device__ explicit ConvolutionBlock(const Convolution<T>& p) : p(p) {
    const Tiling& size = p.size;
    const unsigned rest = blockIdx.x / size.chunks();
    channel = int(blockIdx.x % size.chunks()) * size.chunk;
    channels = min(size.chunk, size.channels - channel);
    image = rest / size.tiles();
    tile = size.tile(int(rest % size.tiles()));
    region = size.around(tile, size.pad_height(), size.pad_height());
  }

  // All threads call this; nan: whether one of the thread's outputs is.
  __device__ void store(const Planes<T>& out, bool nan) const {
    if (__syncthreads_or(nan)) {
      for (int i = threadIdx.x; i < channels * tile.rows * tile.columns; i += blockDim.x) {
        const int column = i % tile.columns, row = i / tile.columns % tile.rows, c = i / tile.columns / tile.rows;
        T& number = *out.at(c, row, column);
        const Compute<T> wide = widen(number);
        if (wide != wide) narrow(exact_output(p, image, channel + c, tile.row + row, tile.column + column), number);
      }
      __syncthreads();
    }
    store_tile(out, p.output, image, channel, channels, tile);
  }
};

// On CUDA cores. Shared memory: planes of the inputs, of the weights, of the outputs.
template <typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocksPerMultiprocessor<T>) convolve_on_cuda_cores(Convolution<T> p) {
  const ConvolutionBlock<T> block(p);
  const Tiling& size = p.size;
  const int pad = size.pad_width(), shift = Correlation<T>::shift(pad);
  const Planes<T> in{reinterpret_cast<T*>(shared_memory()), p.in};
  const Planes<T> kernels{in.at(size.chunk, 0, 0), p.kernel}, out{kernels.at(size.chunk, 0, 0), p.out};
  clear(in.data, int((out.data - in.data) * sizeof(T)));
  __syncthreads();
  load_tile(p.input, block.image, block.channel, block.channels, block.region, Planes<T>{in.data + shift, p.in});
  load_tile(Packed<const T>{p.weight, 1, false}, 0, block.channel, block.channels,
            Region{0, size.kernel_height, 0, size.kernel_width}, Planes<T>{kernels.at(0, kStripRows - 1, 0), p.kernel});
  __syncthreads();

  const Correlation<T> correlation{{in.data, p.in},    block.region,      {kernels.data, p.kernel},
                                   size.kernel_height, size.pad_height(), pad};
  const Region& tile = block.tile;
  const int down = ceil_div(tile.rows, kStripRows), strips = strips_of(tile.rows, tile.columns);
  bool nan = false;
  for (int strip = threadIdx.x; strip < block.channels * strips; strip += blockDim.x) {
    const int row = strip % down * kStripRows, column = strip % strips / down * kStripColumns, c = strip / strips;
    T total[kStripRows][kStripColumns] = {};
    correlation.add_strip(c, tile.row + row, tile.column + column, total);
    const T bias = p.bias ? p.bias[block.channel + c] : T(0);
#pragma unroll
    for (int i = 0; i < kStripRows; ++i)
#pragma unroll
      for (int t = 0; t < kStripColumns; ++t) {
        if (row + i >= tile.rows || column + t >= tile.columns) continue;
        const T sum = total[i][t] + bias;
        nan |= sum != sum;
        *out.at(c, row + i, column + t) = sum;
      }
  }
  block.store(out, nan);
}

// On tensor cores: for each kernel row a the product of rows of the input with a matrix of that row's weights,
//
//   out[y, x] += sum over columns x' of in[y + a - pad_height, x'] * kernel[a, x' - x + pad_width],
//
// in steps of 16 columns x', that begin at a multiple of 16. A warp has 32 rows and 32 columns of one channel. The
// matrix of weights, of 16 columns x' and 8 columns x, depends only on the distance of its first x' from its first x:
// it serves all rows, and all columns at that distance.
constexpr int kWarpRows = 32, kWarpColumns = 32;

// Weights of one kernel row in shared memory: word i holds weights i and i + 1, so that a lane's two rows of the matrix
// are one word whatever the distance, which is from -pad_width - 15 to pad_width + 7. Zeros outside the row. Each warp
// has two such rows, which take turns.
constexpr int kPairsBefore = 22, kPairsAfter = 21;
__host__ __device__ inline int pairs_of(int kernel_width) { return kPairsBefore + kernel_width + kPairsAfter; }

// Those from `first` to `last`
template <typename T>
__device__ void fill_pairs(uint32_t* pairs, const T* weights, int64_t step, int size, int first, int last) {
  for (int i = first + int(threadIdx.x % kWarpSize); i <= last; i += kWarpSize) {
    const uint32_t low = unsigned(i) < unsigned(size) ? weights[i * step].bits : 0;
    const uint32_t high = unsigned(i + 1) < unsigned(size) ? weights[(i + 1) * step].bits : 0;
    pairs[i] = low | high << 16;
  }
}

// Shared memory: a row of zeros, planes of the inputs, of the outputs, pairs of weights.
template <typename T>
__global__ void __launch_bounds__(kThreads, kMinBlocksPerMultiprocessor<T>) convolve_on_tensor_cores(Convolution<T> p) {
  const ConvolutionBlock<T> block(p);
  const Tiling& size = p.size;
  const Region &tile = block.tile, &region = block.region;
  const int pad = size.pad_width();
  T* const zeros = reinterpret_cast<T*>(shared_memory());
  const Planes<T> in{zeros + p.in.stride, p.in}, out{in.at(size.chunk, 0, 0), p.out};
  clear(zeros, int((out.data - zeros) * sizeof(T)));
  __syncthreads();
  load_tile(p.input, block.image, block.channel, block.channels, region, in);
  __syncthreads();

  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  uint32_t* const pairs =
      reinterpret_cast<uint32_t*>(out.at(size.chunk, 0, 0)) + warp * 2 * pairs_of(size.kernel_width) + kPairsBefore;
  const int c = warp % size.chunk, top = warp / size.chunk * kWarpRows;  // in the tile
  const int y = tile.row + top;
  const bool active = c < block.channels && top < tile.rows;
  const int columns = ceil_div(tile.columns, 8);  // in eights
  // The distances of 16 columns of input from 8 of output: those that have weights, and the least and greatest here
  const int least = max(-pad - 15, region.column - tile.column - 8 * (columns - 1));
  const int greatest = min(pad + 7, region.column + round_up(region.columns, 16) - 16 - tile.column);
  const int first = active ? max(0, size.pad_height() - (y + min(kWarpRows, tile.rows - top) - 1)) : 0;
  const int last = active ? min(size.kernel_height, size.height + size.pad_height() - y) : 0;

  float total[2][kWarpColumns / 8][4] = {};
  for (int a = first; a < last; ++a) {
    uint32_t* const row_pairs = pairs + a % 2 * pairs_of(size.kernel_width);
    fill_pairs(row_pairs, p.weight.data + (block.channel + c) * p.weight.channel + a * p.weight.row, p.weight.column,
               size.kernel_width, least - 7 + pad, greatest + 14 + pad);
    __syncwarp();
    const uint32_t* const lane_pairs = row_pairs + pad + lane % 4 * 2 - lane / 4;
    const auto load_weights = [&](uint32_t (&b)[2], int distance) {
      if (distance < least || distance > greatest) return;
      b[0] = lane_pairs[distance], b[1] = lane_pairs[distance + 8];
    };
    const T* rows[2];  // the lane's, of the upper and lower 16
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = y + 16 * half + lane % 16 + a - size.pad_height() - region.row;
      rows[half] = (unsigned(row) < unsigned(region.rows) ? in.at(c, row, 0) : zeros) + lane / 16 * 8;
    }
    int distance = region.column - tile.column;
    uint32_t weights[4][2] = {};
    load_weights(weights[0], distance - 16);
    load_weights(weights[1], distance - 24);
    for (int column = 0; column < region.columns; column += 16, distance += 16) {
#pragma unroll
      for (int i = 0; i < 2; ++i) weights[2][i] = weights[0][i], weights[3][i] = weights[1][i];
      load_weights(weights[0], distance);
      load_weights(weights[1], distance - 8);
      uint32_t pixels[2][4];
      ldmatrix<false>(pixels[0], rows[0] + column);
      if (top + 16 < tile.rows) ldmatrix<false>(pixels[1], rows[1] + column);
#pragma unroll
      for (int t = 0; t < kWarpColumns / 8; ++t) {
        if (t >= columns || distance - 8 * t < least || distance - 8 * t > greatest) continue;
        mma<T>(total[0][t], pixels[0], weights[t]);
        if (top + 16 < tile.rows) mma<T>(total[1][t], pixels[1], weights[t]);
      }
    }
  }

  bool nan = false;
  const float bias = active && p.bias ? widen(p.bias[block.channel + c]) : 0;
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int t = 0; t < kWarpColumns / 8; ++t)
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const int row = top + 16 * half + lane / 4 + i * 4, column = 8 * t + lane % 4 * 2;
        if (!active || row >= tile.rows || column >= tile.columns) continue;
        const float left = total[half][t][i] + bias, right = total[half][t][i + 1] + bias;
        nan |= left != left || right != right;
        Pack<T, 2> both;
        narrow(left, both.values[0]);
        narrow(right, both.values[1]);
        both.store(out.at(c, row, column));
      }
  block.store(out, nan);
}

}  // namespace large_kernel_conv
