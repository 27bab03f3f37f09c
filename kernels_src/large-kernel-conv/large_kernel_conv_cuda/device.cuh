// The machine as the kernels see it: numbers, vectors of them, shared memory, tensor cores.
//
// Without nvcc this is an emulated machine: the tests run the kernels on the CPU.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include "cuda_emulator.h"
#endif

#include <cstdint>
#include <type_traits>

#include "types.h"

namespace large_kernel_conv {

constexpr int kThreads = 256, kLanes = 32, kWarps = kThreads / kLanes;  // of a block, at most

// Blocks on a multiprocessor at a time: as many as leave registers enough to spill none
template <typename T>
constexpr int kBlocks = sizeof(T) == 8 ? 1 : 2;

__host__ __device__ constexpr int round_up(int x, int step) { return (x + step - 1) / step * step; }
__host__ __device__ constexpr int parts_of(int x, int size) { return (x + size - 1) / size; }

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(BFloat16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
__device__ inline float widen(Half x) { return __half2float(__ushort_as_half(x.bits)); }

__device__ inline void narrow(float x, float& out) { out = x; }
__device__ inline void narrow(double x, double& out) { out = x; }
__device__ inline void narrow(float x, BFloat16& out) { out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
__device__ inline void narrow(float x, Half& out) { out.bits = __half_as_ushort(__float2half_rn(x)); }

// Numbers that are loaded or stored together
template <typename T, int kSize>
struct alignas(sizeof(T) * kSize < 16 ? sizeof(T) * kSize : 16) Pack {
  T values[kSize];

  static __device__ Pack load(const T* from) { return *reinterpret_cast<const Pack*>(from); }
  __device__ void store(T* to) const { *reinterpret_cast<Pack*>(to) = *this; }
};

#ifdef __CUDACC__
__device__ inline unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

// Four 8 x 8 matrices of 16-bit numbers; lane l gives the address of row l % 8 of matrix l / 8, in shared memory and
// aligned to 16 bytes. It gets columns 2 * (l % 4) and the next of row l / 4 of each; with kTransposed, of their
// transposes.
template <bool kTransposed>
__device__ void load_matrices(uint32_t (&out)[4], const void* row) {
  const uint32_t address = uint32_t(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

// total (16 x 8) += a (16 x 16) * b (16 x 8). Of a and b a lane holds, as 8 x 8 matrices, what load_matrices gives, of
// b transposed: those of a are upper left, lower left, upper right, lower right. Of total it holds columns
// 2 * (l % 4) and the next, of row l / 4 and of row l / 4 + 8.
template <typename T>
__device__ void multiply_add(float (&total)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, Half>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(total[0]), "+f"(total[1]), "+f"(total[2]), "+f"(total[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(total[0]), "+f"(total[1]), "+f"(total[2]), "+f"(total[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

}  // namespace large_kernel_conv
