// Just enough of CUDA to run the kernels' device code on a CPU, compiled by a C++ compiler alone.
//
// The threads of a block are coroutines that change places where they must converge: the lanes of a warp at __syncwarp,
// shuffles, votes and the instructions of tensor cores, warps at __syncthreads. Every lane must take part in each:
// lanes that diverge, and those that have exited, are an error. EMULATOR_ORDER=reverse turns the order of lanes, warps
// and blocks round: a result that depends on it is a race. Shared memory starts as NaN and has exactly the size asked
// for.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 0, y = 1, z = 1;
  dim3() = default;
  explicit dim3(unsigned x) : x(x) {}
};
inline thread_local dim3 threadIdx, blockIdx, blockDim;
using std::max;
using std::min;

namespace emulator {

constexpr int kWarpSize = 32, kThreads = 256, kStack = 1 << 18, kGuard = 256;
constexpr int kMostShared = 99 << 10;  // that every architecture has for a block, in bytes

struct Slot {
  alignas(8) unsigned char bytes[24];
};

inline thread_local struct {
  ucontext_t threads[kThreads];         // where each starts; from then on
  jmp_buf scheduler, resume[kThreads];  // jumps, as they cost no system call
  std::unique_ptr<char[]> stacks[kThreads];
  bool started[kThreads / kWarpSize];
  std::function<void()> body;
  const char* waits_at[kThreads];  // null: has exited
  bool at_barrier[kThreads];
  int exchanges[kThreads];  // so far: neighbouring exchanges use different slots
  Slot slots[2][kThreads];
  bool vote, result;  // of __syncthreads_or: so far, and of the last one
  std::unique_ptr<unsigned char[]> shared;
  size_t shared_bytes;
} block;

inline int lane() { return int(threadIdx.x % kWarpSize); }

[[noreturn]] inline void fail(const char* what, const char* where) {
  std::fprintf(stderr, "emulated kernel: %s at %s\n", what, where ? where : "the end");
  std::abort();
}

inline void wait(const char* where, bool at_barrier) {
  block.waits_at[threadIdx.x] = where;
  block.at_barrier[threadIdx.x] = at_barrier;
  if (!_setjmp(block.resume[threadIdx.x])) _longjmp(block.scheduler, 1);
}

// All lanes of the warp give something; returns the slots that hold it, one a lane.
template <typename V>
const Slot* exchange(const char* where, const V& given) {
  static_assert(sizeof(V) <= sizeof(Slot));
  Slot* slots = block.slots[block.exchanges[threadIdx.x]++ % 2];
  std::memcpy(slots + threadIdx.x, &given, sizeof(V));
  const int first = int(threadIdx.x) - lane();
  wait(where, false);
  return slots + first;
}

template <typename V>
V read(const Slot& slot) {
  V number;
  std::memcpy(&number, slot.bytes, sizeof(V));
  return number;
}

inline bool barrier(const char* where, bool vote) {
  block.vote |= vote;
  wait(where, true);
  return block.result;
}

inline void run_thread() {
  block.body();
  block.waits_at[threadIdx.x] = nullptr;
  _longjmp(block.scheduler, 1);
}

// Until all lanes of the warp wait for other warps or have exited
inline void run_warp(int first_thread, bool reverse) {
  for (volatile bool stop = false; !stop;) {  // volatile: lives through the jumps
    for (volatile int i = 0; i < kWarpSize; i = i + 1) {
      const int next = first_thread + (reverse ? kWarpSize - 1 - i : i);
      threadIdx.x = next;
      if (_setjmp(block.scheduler)) continue;
      if (block.started[first_thread / kWarpSize]) _longjmp(block.resume[next], 1);
      setcontext(&block.threads[next]);
    }
    block.started[first_thread / kWarpSize] = true;
    const char* const place = block.waits_at[first_thread];
    for (int i = 0; i < kWarpSize; ++i)
      if (block.waits_at[first_thread + i] != place) fail("lanes diverge", place);
    stop = !place || block.at_barrier[first_thread];
  }
}

inline void run_block(bool reverse) {
  const int threads = int(blockDim.x), warps = threads / kWarpSize;
  for (int i = 0; i < threads; ++i) {
    if (!block.stacks[i]) block.stacks[i].reset(new char[kStack]);
    getcontext(&block.threads[i]);
    block.threads[i].uc_stack.ss_sp = block.stacks[i].get();
    block.threads[i].uc_stack.ss_size = kStack;
    block.exchanges[i] = 0;
    makecontext(&block.threads[i], &run_thread, 0);
  }
  std::fill(block.started, block.started + warps, false);
  std::memset(block.shared.get(), 0xff, block.shared_bytes + kGuard);
  block.vote = false;
  do {
    for (int i = 0; i < warps; ++i) run_warp((reverse ? warps - 1 - i : i) * kWarpSize, reverse);
    for (int i = 0; i < threads; ++i)
      if (block.waits_at[i] != block.waits_at[0]) fail("warps diverge", block.waits_at[i]);
    block.result = block.vote, block.vote = false;
  } while (block.waits_at[0]);
  for (int i = 0; i < kGuard; ++i)
    if (block.shared[block.shared_bytes + i] != 0xff) fail("shared memory is too small", nullptr);
}

template <typename V>
V shuffle(const char* where, V number, int source) {
  return read<V>(exchange(where, number)[source]);
}

inline unsigned ballot(const char* where, bool vote) {
  const Slot* slots = exchange(where, vote);
  unsigned votes = 0;
  for (int i = 0; i < kWarpSize; ++i) votes |= unsigned(read<bool>(slots[i])) << i;
  return votes;
}

}  // namespace emulator

#define EMULATOR_TEXT(LINE) #LINE
#define EMULATOR_PLACE(FILE, LINE) FILE ":" EMULATOR_TEXT(LINE)
#define EMULATOR_HERE EMULATOR_PLACE(__FILE__, __LINE__)
#define __syncwarp() emulator::exchange(EMULATOR_HERE, 0)
#define __syncthreads() emulator::barrier(EMULATOR_HERE, false)
#define __syncthreads_or(X) emulator::barrier(EMULATOR_HERE, X)
#define __shfl_sync(MASK, X, SOURCE) emulator::shuffle(EMULATOR_HERE, X, SOURCE)
#define __shfl_xor_sync(MASK, X, STEP) emulator::shuffle(EMULATOR_HERE, X, emulator::lane() ^ (STEP))
#define __ballot_sync(MASK, X) emulator::ballot(EMULATOR_HERE, X)
#define __any_sync(MASK, X) (emulator::ballot(EMULATOR_HERE, X) != 0)
#define __ffs __builtin_ffs

inline unsigned char* shared_memory() { return emulator::block.shared.get(); }

// The instructions of tensor cores, as their documentation lays matrices out over lanes
template <bool kTransposed>
void ldmatrix(uint32_t (&out)[4], const void* row) {
  const auto* const begin = shared_memory();
  const auto* const address = static_cast<const unsigned char*>(row);
  if (uintptr_t(row) % 16 || address < begin || address + 16 > begin + emulator::block.shared_bytes)
    emulator::fail("bad address", "ldmatrix");
  const emulator::Slot* slots = emulator::exchange("ldmatrix", address);
  const int lane = emulator::lane();
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {
      const int from_row = kTransposed ? lane % 4 * 2 + i : lane / 4,
                column = kTransposed ? lane / 4 : lane % 4 * 2 + i;
      std::memcpy(pair + i, emulator::read<const unsigned char*>(slots[matrix * 8 + from_row]) + 2 * column, 2);
    }
    std::memcpy(out + matrix, pair, 4);
  }
}

template <typename T>
void mma(float (&total)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct Operands {
    T a[4][2], b[2][2];
  } own;
  std::memcpy(own.a, a, sizeof(own.a));
  std::memcpy(own.b, b, sizeof(own.b));
  const emulator::Slot* slots = emulator::exchange("mma", own);
  const int lane = emulator::lane();
  for (int quarter = 0; quarter < 4; ++quarter) {  // those of k that one lane holds: two, and two 8 further
    const auto rows = emulator::read<Operands>(slots[lane / 4 * 4 + quarter]);
    for (int column = 0; column < 2; ++column) {
      const auto columns = emulator::read<Operands>(slots[(lane % 4 * 2 + column) * 4 + quarter]);
      for (int half = 0; half < 2; ++half)  // of k
        for (int i = 0; i < 2; ++i)
          for (int row = 0; row < 2; ++row)
            total[row * 2 + column] += widen(rows.a[half * 2 + row][i]) * widen(columns.b[half][i]);
    }
  }
}

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline void atomicAdd(float* at, float x) { *at += x; }
inline void atomicAdd(double* at, double x) { *at += x; }
inline void atomicAdd(float2* at, float2 x) { at->x += x.x, at->y += x.y; }
inline void atomicAdd(float4* at, float4 x) { at->x += x.x, at->y += x.y, at->z += x.z, at->w += x.w; }

template <typename To, typename From>
To reinterpret_bits(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To out;
  std::memcpy(&out, &x, sizeof(out));
  return out;
}
inline float __uint_as_float(uint32_t bits) { return reinterpret_bits<float>(bits); }
inline uint32_t __float_as_uint(float x) { return reinterpret_bits<uint32_t>(x); }

inline uint16_t __ushort_as_half(uint16_t bits) { return bits; }
inline uint16_t __half_as_ushort(uint16_t bits) { return bits; }
inline float __half2float(uint16_t bits) {
  const uint32_t magnitude = uint32_t(bits & 0x7fff) << 13;
  const bool finite = (bits & 0x7c00) != 0x7c00;
  const float x = finite ? __uint_as_float(magnitude) * 0x1p112f : __uint_as_float(magnitude | 0x7f800000);
  return bits & 0x8000 ? -x : x;
}
inline uint16_t __float2half_rn(float x) {
  const uint16_t sign = __float_as_uint(x) >> 16 & 0x8000;
  const float magnitude = fabs(x);
  if (x != x) return 0x7fff;
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < 0x1p-14f) return sign | uint16_t(nearbyint(magnitude * 0x1p24f));
  const uint32_t bits = __float_as_uint(magnitude);
  return sign | uint16_t((bits + 0xfff + (bits >> 13 & 1) - (112u << 23)) >> 13);
}

inline uint16_t __bfloat16_as_ushort(uint16_t bits) { return bits; }
inline uint16_t __float2bfloat16_rn(float x) {
  const uint32_t bits = __float_as_uint(x);
  return x == x ? uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : 0x7fff;
}

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) { return error ? "invalid configuration" : "no error"; }
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, int, int bytes) {
  return bytes <= emulator::kMostShared ? cudaSuccess : cudaErrorInvalidConfiguration;
}
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
  const char* order = std::getenv("EMULATOR_ORDER");
  const bool reverse = order && std::string(order) == "reverse";
  if (config->blockDim.x > emulator::kThreads) return cudaErrorInvalidConfiguration;
  emulator::block.body = [=] { kernel(arguments...); };
  emulator::block.shared_bytes = config->dynamicSmemBytes;
  emulator::block.shared.reset(new unsigned char[config->dynamicSmemBytes + emulator::kGuard]);  // aligned to 16 bytes
  blockDim = config->blockDim;
  for (unsigned i = 0; i < config->gridDim.x; ++i) {
    blockIdx.x = reverse ? config->gridDim.x - 1 - i : i;
    emulator::run_block(reverse);
  }
  return cudaSuccess;
}
