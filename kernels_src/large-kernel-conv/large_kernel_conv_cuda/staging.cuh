// Tiles on their way between global and shared memory, where each channel has a plane of its own.
#pragma once

#include "problem.cuh"

namespace large_kernel_conv {

template <typename T>
struct Planes {
  T* data;
  Extent extent;

  __device__ T* at(int channel, int row, int column) const {
    return data + (channel * extent.rows + row) * extent.stride + column;
  }
};

// bytes: a multiple of 16
__device__ inline void clear(void* memory, int bytes) {
  for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x)
    Pack<uint32_t, 4>{}.store(static_cast<uint32_t*>(memory) + 4 * i);
}

// Call f(channel, row, column) for the first number of each pack of a tile, all of them relative to it.
template <int kPack, typename T, typename F>
__device__ void for_packs(const Packed<T>& tensor, int channels, const Region& tile, F f) {
  const int packs = (tensor.by_channel ? channels : tile.columns) / kPack;  // side by side
  const int count = packs * tile.rows * (tensor.by_channel ? tile.columns : channels);
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const int side = i % packs * kPack, rest = i / packs;
    if (tensor.by_channel)
      f(side, rest / tile.columns, rest % tile.columns);
    else
      f(rest / tile.rows, rest % tile.rows, side);
  }
}

// Call f with a constant, the pack's size.
template <int kMost, typename F>
__device__ void with_pack(int pack, F f) {
  if constexpr (kMost > 1)
    if (pack < kMost) return with_pack<kMost / 2>(pack, f);
  f(std::integral_constant<int, kMost>());
}

template <typename T>
__device__ void load_tile(const Packed<const T>& from, int64_t image, int channel, int channels, const Region& tile,
                          const Planes<T>& to) {
  with_pack<16 / sizeof(T)>(from.pack, [&](auto size) {
    for_packs<size()>(from, channels, tile, [&](int c, int row, int column) {
      const auto pack = Pack<T, size()>::load(from.at(image, channel + c, tile.row + row, tile.column + column));
      T* const first = to.at(c, row, column);
      const int step = from.by_channel ? to.extent.elements() : 1;
#pragma unroll
      for (int i = 0; i < size(); ++i) first[i * step] = pack.values[i];
    });
  });
}

template <typename T>
__device__ void store_tile(const Planes<T>& from, const Packed<T>& to, int64_t image, int channel, int channels,
                           const Region& tile) {
  with_pack<16 / sizeof(T)>(to.pack, [&](auto size) {
    for_packs<size()>(to, channels, tile, [&](int c, int row, int column) {
      const T* const first = from.at(c, row, column);
      const int step = to.by_channel ? from.extent.elements() : 1;
      Pack<T, size()> pack;
#pragma unroll
      for (int i = 0; i < size(); ++i) pack.values[i] = first[i * step];
      pack.store(to.at(image, channel + c, tile.row + row, tile.column + column));
    });
  });
}

}  // namespace large_kernel_conv
