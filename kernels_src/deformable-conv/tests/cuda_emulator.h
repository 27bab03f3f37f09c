// Just enough of CUDA to run this kernel's device code on a CPU, compiled by a C++ compiler alone.
//
// The lanes of a warp are coroutines that change places where they must meet: at __syncwarp, shuffles and votes. Warps
// and blocks run one after the other: the kernels have no barrier between warps. A lane that meets others at a
// different place is an error, and so is one that has gone. EMULATOR_ORDER=reverse turns the order of lanes, warps and
// blocks round: a result that depends on it is a race. Shared memory starts as NaN and has exactly the size asked for.
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
inline thread_local dim3 threadIdx, blockIdx;
using std::max;
using std::min;

namespace emulator {

constexpr int kLanes = 32, kStack = 1 << 18;

inline thread_local struct {
  ucontext_t lanes[kLanes];           // where each starts; from then on
  jmp_buf scheduler, resume[kLanes];  // jumps, as they cost no system call
  std::unique_ptr<char[]> stacks[kLanes];
  std::function<void()> body;
  const char* waits_at[kLanes];  // null: has gone
  int meetings[kLanes];          // so far: neighbouring meetings use different slots
  double slots[2][kLanes];
  std::unique_ptr<unsigned char[]> shared;
} warp;

inline int lane() { return int(threadIdx.x % kLanes); }

[[noreturn]] inline void fail(const char* what, const char* where) {
  std::fprintf(stderr, "emulated kernel: %s at %s\n", what, where ? where : "the end");
  std::abort();
}

// All lanes of the warp give a number; returns the slots that hold them.
template <typename V>
const double* meet(const char* where, V number) {
  const int self = lane();
  double* slots = warp.slots[warp.meetings[self]++ % 2];
  std::memcpy(slots + self, &number, sizeof(V));
  warp.waits_at[self] = where;
  if (!_setjmp(warp.resume[self])) _longjmp(warp.scheduler, 1);
  return slots;
}

template <typename V>
V read(const double* slot) {
  V number;
  std::memcpy(&number, slot, sizeof(V));
  return number;
}

inline void run_lane() {
  warp.body();
  warp.waits_at[lane()] = nullptr;
  _longjmp(warp.scheduler, 1);
}

inline void run_warp(int first_thread, bool reverse) {
  for (int i = 0; i < kLanes; ++i) {
    if (!warp.stacks[i]) warp.stacks[i].reset(new char[kStack]);
    getcontext(&warp.lanes[i]);
    warp.lanes[i].uc_stack.ss_sp = warp.stacks[i].get();
    warp.lanes[i].uc_stack.ss_size = kStack;
    warp.meetings[i] = 0;
    makecontext(&warp.lanes[i], &run_lane, 0);
  }
  for (volatile bool started = false;; started = true) {
    for (volatile int i = 0; i < kLanes; i = i + 1) {  // volatile: lives through the jumps
      const int next = reverse ? kLanes - 1 - i : i;
      threadIdx.x = first_thread + next;
      if (_setjmp(warp.scheduler)) continue;
      if (started) _longjmp(warp.resume[next], 1);
      setcontext(&warp.lanes[next]);
    }
    for (const char* place : warp.waits_at)
      if (place != warp.waits_at[0]) fail("lanes part", place);
    if (!warp.waits_at[0]) return;
  }
}

}  // namespace emulator

#define EMULATOR_TEXT(LINE) #LINE
#define EMULATOR_PLACE(FILE, LINE) FILE ":" EMULATOR_TEXT(LINE)
#define EMULATOR_HERE EMULATOR_PLACE(__FILE__, __LINE__)
#define __syncwarp() emulator::meet(EMULATOR_HERE, 0)
#define __shfl_sync(MASK, X, SOURCE) emulator::shuffle(EMULATOR_HERE, X, SOURCE)
#define __shfl_xor_sync(MASK, X, STEP) emulator::shuffle(EMULATOR_HERE, X, emulator::lane() ^ (STEP))
#define __ballot_sync(MASK, X) emulator::ballot(EMULATOR_HERE, X)
#define __any_sync(MASK, X) (emulator::ballot(EMULATOR_HERE, X) != 0)
#define __ffs __builtin_ffs

namespace emulator {

template <typename V>
V shuffle(const char* where, V number, int source) {
  return read<V>(meet(where, number) + source);
}

inline unsigned ballot(const char* where, bool vote) {
  const double* slots = meet(where, vote);
  unsigned votes = 0;
  for (int i = 0; i < kLanes; ++i) votes |= unsigned(read<bool>(slots + i)) << i;
  return votes;
}

}  // namespace emulator

inline unsigned char* shared_memory() { return emulator::warp.shared.get(); }

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
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) { return error ? "invalid configuration" : "no error"; }
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
  emulator::warp.body = [=] { kernel(arguments...); };
  emulator::warp.shared.reset(new unsigned char[config->dynamicSmemBytes]);  // aligned to 16 bytes
  const unsigned blocks = config->gridDim.x, warps = config->blockDim.x / emulator::kLanes;
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx.x = reverse ? blocks - 1 - block : block;
    std::memset(shared_memory(), 0xff, config->dynamicSmemBytes);
    for (unsigned i = 0; i < warps; ++i)
      emulator::run_warp(int(reverse ? warps - 1 - i : i) * emulator::kLanes, reverse);
  }
  return cudaSuccess;
}
