// The machine as the kernels see it: numbers, vectors of them, atomics, shared memory, teams of lanes.
//
// Without nvcc this is an emulated machine: the tests run the kernels on the CPU.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include "cuda_emulator.h"
#endif

#include <cstring>
#include <type_traits>

#include "types.h"

namespace deformable_conv {

constexpr int kThreads = 128;  // of a block
constexpr unsigned kAllLanes = 0xffffffff;

// Blocks on a multiprocessor at a time: as many as leave registers enough to spill none
template <typename T>
constexpr int blocks_at_a_time() {
  if (sizeof(T) == 8) return 4;
  return sizeof(T) == 4 ? 6 : 7;
}

#ifdef __CUDACC__
__device__ inline unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}
#endif

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(BFloat16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
__device__ inline float widen(Half x) { return __half2float(__ushort_as_half(x.bits)); }

__device__ inline void narrow(float x, float& out) { out = x; }
__device__ inline void narrow(double x, double& out) { out = x; }
__device__ inline void narrow(float x, BFloat16& out) { out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
__device__ inline void narrow(float x, Half& out) { out.bits = __half_as_ushort(__float2half_rn(x)); }

// Numbers that one instruction loads or stores
template <typename T, int kSize>
struct alignas(sizeof(T) * kSize) Pack {
  T values[kSize];

  // number i, widened; the two bfloat16 of a word by one instruction each
  __device__ Compute<T> operator[](int i) const {
    if constexpr (std::is_same_v<T, BFloat16> && kSize > 1) {
      uint32_t word;
      memcpy(&word, values + i / 2 * 2, sizeof(word));
      return __uint_as_float(i % 2 ? word & 0xffff0000 : word << 16);
    }
    return widen(values[i]);
  }
  static __device__ Pack load(const T* from) { return *reinterpret_cast<const Pack*>(from); }
  __device__ void store(T* to) const { *reinterpret_cast<Pack*>(to) = *this; }
};

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

// Lanes of a warp that work on one unit: neighbouring lanes on neighbouring channels. Teams stay together to the end of
// a kernel, also those that have no unit.
struct Team {
  int lanes, lane, index;  // a power of two; number in the team; the team's number in the block

  __device__ explicit Team(int log2_lanes)
      : lanes(1 << log2_lanes), lane(threadIdx.x & (lanes - 1)), index(threadIdx.x >> log2_lanes) {}

  __device__ int teams() const { return kThreads / lanes; }  // of the block

  template <typename A>
  __device__ A sum(A x) const {
    for (int step = lanes >> 1; step; step >>= 1) x += __shfl_xor_sync(kAllLanes, x, step);
    return x;
  }
  template <typename A>
  __device__ A max(A x) const {
    for (int step = lanes >> 1; step; step >>= 1) x = fmax(x, __shfl_xor_sync(kAllLanes, x, step));
    return x;
  }
  // The sums of four numbers over the team, which has at least four lanes: each lane gets the sum of x[mine()].
  __device__ int mine() const { return (lane & 1) * 2 + (lane >> 1 & 1); }
  template <typename A>
  __device__ A sum_four(const A (&x)[4]) const {
    const bool odd = lane & 1, upper = lane & 2;
    const A first = (odd ? x[2] : x[0]) + __shfl_xor_sync(kAllLanes, odd ? x[0] : x[2], 1);
    const A second = (odd ? x[3] : x[1]) + __shfl_xor_sync(kAllLanes, odd ? x[1] : x[3], 1);
    A total = (upper ? second : first) + __shfl_xor_sync(kAllLanes, upper ? first : second, 2);
    for (int step = 4; step < lanes; step *= 2) total += __shfl_xor_sync(kAllLanes, total, step);
    return total;
  }
};

}  // namespace deformable_conv
