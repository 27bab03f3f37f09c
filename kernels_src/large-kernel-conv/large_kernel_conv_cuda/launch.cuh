// Which kernel runs, how tiles are cut, and how many threads and blocks there are. None of it depends on the device, so
// that results do not.
#pragma once

#include <algorithm>

#include "common/launch.cuh"

#include "forward.cuh"
#include "weight_gradient.cuh"

namespace large_kernel_conv {

constexpr int kMostShared = 99 << 10;  // bytes of shared memory that every architecture has for a block
constexpr int kEnoughBlocks = 1024;    // to keep a large GPU busy

// Rows of 16-bit numbers start in different banks: an odd multiple of 16 bytes apart; so do those of a strip.
template <typename T>
int padded(int columns) {
  if (kUsesTensorCores<T>) return round_up(columns, 16) + 8;
  const int quads = ceil_div(columns, 4);
  return 4 * (quads + 1 - quads % 2);
}

// The shared memory that a kernel needs, in bytes; sets the extents of its planes
template <typename T>
int shared_bytes(Convolution<T>& p) {
  const Tiling& size = p.size;
  const int columns = size.most_columns_around();
  p.in = {size.most_rows_around(size.kernel_height - 1), padded<T>(kUsesTensorCores<T> ? columns : columns + 3)};
  p.out = {size.tile_rows, size.tile_columns + 8};
  const int elements = size.chunk * (p.in.elements() + p.out.elements());
  if constexpr (kUsesTensorCores<T>) {
    return (elements + p.in.stride) * int(sizeof(T)) + kWarps * 2 * pairs_of(size.kernel_width) * 4;
  } else {
    p.kernel = {size.kernel_height + 2 * (kStripRows - 1), round_up(size.kernel_width, 4)};
    return (elements + size.chunk * p.kernel.elements()) * int(sizeof(T));
  }
}

template <typename T>
int shared_bytes(WeightGradient<T>& p) {
  const Tiling& size = p.size;
  const int columns = size.most_columns_around(), tile_columns = size.tile_columns;
  if constexpr (kUsesTensorCores<T>) {
    p.in = {size.most_rows_around(kernel_rows_of_part(size.chunk) - 1), padded<T>(columns)};
    p.out = {size.tile_rows, padded<T>(tile_columns)};
    const int stage = (size.chunk * (p.in.elements() + p.out.elements()) + std::max(p.in.stride, p.out.stride)) * 2;
    return std::max(stage, kWarps * kStepsOfPart * 256 * int(sizeof(float)));
  } else {
    p.in = {size.most_rows_around(size.kernel_height - 1), padded<T>(columns + 3)};
    p.out = {size.tile_rows + 2 * (kStripRows - 1), tile_columns};
    return size.chunk * (p.in.elements() + p.out.elements()) * int(sizeof(T));
  }
}

// Strips of one channel that a block computes
template <typename T>
int strips_of(const Convolution<T>& p) {
  return strips_of(p.size.tile_rows, p.size.tile_columns);
}
template <typename T>
int strips_of(const WeightGradient<T>& p) {
  return strips_of(p.size.kernel_height, p.size.kernel_width);
}

// Threads of a block on CUDA cores: one a strip, in whole warps
template <typename P>
int strip_threads(const P& p) {
  return std::min(kThreads, round_up(p.size.chunk * strips_of(p), kWarpSize));
}

// Cut tiles that shared memory holds; returns the bytes of it. Warps of tensor cores have a channel each, and share one
// where there are fewer channels; threads of CUDA cores share out the strips of as many channels as they need.
template <typename P>
int cut_tiles(P& p, int rows, int columns, int pack) {
  Tiling& size = p.size;
  constexpr bool tensor_cores =
      kUsesTensorCores<std::remove_const_t<std::remove_pointer_t<decltype(p.input.view.data)>>>;
  const auto cut = [&](int chunk) {
    size.chunk = chunk;
    size.tile_rows = std::min(tensor_cores ? rows * (kWarps / chunk) : rows, size.height);
    size.tile_columns = std::min(columns, round_up(size.width, 16));
    return shared_bytes(p);
  };
  int chunk = pack;
  while (chunk / 2 >= size.channels) chunk /= 2;
  if (!tensor_cores)
    for (cut(chunk); chunk < size.channels && chunk * strips_of(p) < kThreads; chunk *= 2)
      if (cut(2 * chunk) > kMostShared / 2) break;  // another block has room beside it
  while (cut(chunk) > kMostShared && chunk > 1) chunk /= 2;
  while (cut(chunk) > kMostShared && rows > 1) rows /= 2;
  return shared_bytes(p);
}

// How a tensor is read or written in tiles: as many numbers at once as its memory allows
template <typename T>
Packed<T> packed(const View<T>& view, const Tiling& size) {
  const bool by_channel = view.channel == 1 && view.column != 1;
  if (!by_channel && view.column != 1) return {view, 1, false};
  int64_t bytes = int64_t(reinterpret_cast<uintptr_t>(view.data)) | view.image * sizeof(T) | view.row * sizeof(T) | 16;
  bytes |= (by_channel ? view.column : view.channel) * sizeof(T);
  bytes |= (by_channel ? size.channels | size.chunk : size.width) * sizeof(T);
  return {view, int((bytes & -bytes) / sizeof(T)), by_channel};
}

template <typename T>
cudaError_t launch_convolution(Convolution<T> p, cudaStream_t stream) {
  const Tiling& size = p.size;
  const int shared = cut_tiles(p, kUsesTensorCores<T> ? kWarpRows : 48, kWarpColumns, 16 / sizeof(T));
  p.input = packed(p.input.view, size), p.output = packed(p.output.view, size);
  const int64_t blocks = size.batch_tiles() * size.chunks();
  if constexpr (kUsesTensorCores<T>)
    return launch(&convolve_on_tensor_cores<T>, blocks, kThreads, shared, stream, p);
  else
    return launch(&convolve_on_cuda_cores<T>, blocks, strip_threads(p), shared, stream, p);
}

// `make_sums` gives the memory of as many gradients as it is asked for.
template <typename T, typename F>
cudaError_t launch_weight_gradient(WeightGradient<T> p, cudaStream_t stream, F make_sums) {
  const Tiling& size = p.size;
  const int shared = kUsesTensorCores<T> ? cut_tiles(p, 32, 64, 8) : cut_tiles(p, 16, 32, 16 / sizeof(T));
  p.input = packed(p.input.view, size), p.grad_output = packed(p.grad_output.view, size);
  const int threads = kUsesTensorCores<T> ? kThreads : strip_threads(p);
  const int column_parts = kUsesTensorCores<T> ? ColumnSteps(size.kernel_width).parts() : 1;
  const int parts = kUsesTensorCores<T> ? ceil_div(size.kernel_height, kernel_rows_of_part(size.chunk)) * column_parts
                                        : ceil_div(size.chunk * strips_of(p), threads);
  const int64_t blocks = int64_t(size.chunks()) * parts;
  p.splits = int(std::clamp<int64_t>(kEnoughBlocks / blocks, 1, size.batch_tiles()));
  p.sums = make_sums(p.splits * column_parts);
  if constexpr (kUsesTensorCores<T>)
    return launch(&differentiate_on_tensor_cores<T>, blocks * p.splits, threads, shared, stream, p);
  else
    return launch(&differentiate_on_cuda_cores<T>, blocks * p.splits, threads, shared, stream, p);
}

}  // namespace large_kernel_conv
