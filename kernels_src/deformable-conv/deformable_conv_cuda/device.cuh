// What these kernels want of the device beyond common/device.cuh: atomics, tiles of lanes.
#pragma once

#include "common/device.cuh"
#include "deformable_conv_operator/types.h"

namespace deformable_conv {

constexpr int kThreads = 128;  // of a block

// Blocks on a multiprocessor at a time: as many as leave registers enough to spill none
template <typename T>
constexpr int min_blocks_per_multiprocessor() {
  if (sizeof(T) == 8) return 4;
  return sizeof(T) == 4 ? 6 : 7;
}

// sums[i] += numbers[i], in as few atomics as the architecture has for it; sums as aligned as a Pack is
template <int kSize, typename A>
__device__ void atomic_add(A* sums, const A (&numbers)[kSize]) {
#if __CUDA_ARCH__ >= 900 || !defined(__CUDACC__)
  constexpr bool kHasVectors = sizeof(A) == 4;
#else
  constexpr bool kHasVectors = false;
#endif
  if constexpr (kHasVectors && kSize == 4) {
    atomicAdd(reinterpret_cast<float4*>(sums), make_float4(numbers[0], numbers[1], numbers[2], numbers[3]));
  } else if constexpr (kHasVectors && kSize == 2) {
    atomicAdd(reinterpret_cast<float2*>(sums), make_float2(numbers[0], numbers[1]));
  } else {
#pragma unroll
    for (int i = 0; i < kSize; ++i) atomicAdd(sums + i, numbers[i]);
  }
}

// Lanes of a warp that work on one unit, neighbouring lanes on neighbouring channels: what cooperative groups call a
// tile. Its members are named as theirs. The lanes of a warp converge to the end of a kernel, also those without a
// unit.
struct Tile {
  int num_threads, thread_rank;  // a power of two; the lane's number in the tile
  int meta_group_rank;           // the tile's number in the block

  __device__ explicit Tile(int log2_threads)
      : num_threads(1 << log2_threads),
        thread_rank(threadIdx.x & (num_threads - 1)),
        meta_group_rank(threadIdx.x >> log2_threads) {}

  __device__ int meta_group_size() const { return kThreads / num_threads; }  // tiles of the block

  template <typename A>
  __device__ A sum(A x) const {
    for (int step = num_threads >> 1; step; step >>= 1) x += __shfl_xor_sync(kFullMask, x, step);
    return x;
  }
  template <typename A>
  __device__ A max(A x) const {
    for (int step = num_threads >> 1; step; step >>= 1) x = fmax(x, __shfl_xor_sync(kFullMask, x, step));
    return x;
  }
  // The sums of four numbers over the tile, which has at least four lanes: each lane gets the sum of x[sum_rank()].
  __device__ int sum_rank() const { return (thread_rank & 1) * 2 + (thread_rank >> 1 & 1); }
  template <typename A>
  __device__ A sum_four(const A (&x)[4]) const {
    const bool odd = thread_rank & 1, upper = thread_rank & 2;
    const A first = (odd ? x[2] : x[0]) + __shfl_xor_sync(kFullMask, odd ? x[0] : x[2], 1);
    const A second = (odd ? x[3] : x[1]) + __shfl_xor_sync(kFullMask, odd ? x[1] : x[3], 1);
    A total = (upper ? second : first) + __shfl_xor_sync(kFullMask, upper ? first : second, 2);
    for (int step = 4; step < num_threads; step *= 2) total += __shfl_xor_sync(kFullMask, total, step);
    return total;
  }
};

}  // namespace deformable_conv
