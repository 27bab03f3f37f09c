// The machine as CUDA kernels see it: numbers, vectors of them, shared memory.
//
// Without nvcc this is an emulated machine: the tests run the kernels on the CPU.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include "common/emulator/cuda_emulator.h"
#endif

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "types.h"

namespace common {

constexpr int kWarpSize = 32;
constexpr unsigned kFullMask = 0xffffffff;  // all lanes of a warp

__host__ __device__ constexpr int ceil_div(int x, int y) { return (x + y - 1) / y; }
__host__ __device__ constexpr int round_up(int x, int step) { return ceil_div(x, step) * step; }

#ifdef __CUDACC__
// What a launch asks for beyond the static; aligned to 16 bytes.
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

// Numbers that are loaded or stored together: by one instruction where they have 16 bytes at most.
template <typename T, int kSize>
struct alignas(sizeof(T) * kSize < 16 ? sizeof(T) * kSize : 16) Pack {
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

}  // namespace common
