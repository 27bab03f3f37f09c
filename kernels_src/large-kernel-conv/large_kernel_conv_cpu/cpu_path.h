// Which compute path this processor runs.
#pragma once

#include <cstdlib>
#include <string>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <torch/headeronly/util/Exception.h>

namespace large_kernel_conv {

// avx512_bf16 and amx: for bfloat16, else as avx512
enum class CpuPath { portable, avx2, avx512, avx512_bf16, amx };
constexpr const char* kPathNames[] = {"portable", "avx2", "avx512", "avx512_bf16", "amx"};

// Linux saves the tile registers only of a process that has asked for it; a refusal means that there are none.
inline bool has_amx() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kBFloat16 = 1u << 22, kTile = 1u << 24;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kBFloat16) && (d & kTile) &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

inline CpuPath best_path() {
#if defined(__x86_64__)
  __builtin_cpu_init();  // asks the operating system too whether it saves the registers
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      return has_amx()                              ? CpuPath::amx
             : __builtin_cpu_supports("avx512bf16") ? CpuPath::avx512_bf16
                                                    : CpuPath::avx512;
    return CpuPath::avx2;
  }
#endif
  return CpuPath::portable;
}

// The best path, or the one that LARGE_KERNEL_CONV_CPU_PATH names, which tests use.
inline CpuPath choose_path() {
  static const CpuPath best = best_path();
  const char* name = std::getenv("LARGE_KERNEL_CONV_CPU_PATH");
  if (!name || !*name) return best;
  const std::string wanted = name;
  for (CpuPath path : {CpuPath::portable, CpuPath::avx2, CpuPath::avx512, CpuPath::avx512_bf16, CpuPath::amx}) {
    if (wanted != kPathNames[int(path)]) continue;
    STD_TORCH_CHECK(path <= best, "LARGE_KERNEL_CONV_CPU_PATH: this processor does not run ", wanted);
    return path;
  }
  STD_TORCH_CHECK(false, "LARGE_KERNEL_CONV_CPU_PATH: expected amx, avx512_bf16, avx512, avx2 or portable, got ",
                  wanted);
}

}  // namespace large_kernel_conv
