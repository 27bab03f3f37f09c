// Which compute path this processor runs.
#pragma once

#include <cstdlib>
#include <string>

#include <torch/headeronly/util/Exception.h>

namespace large_kernel_conv {

enum class CpuPath { portable, avx2, avx512 };

inline CpuPath best_path() {
#if defined(__x86_64__)
  __builtin_cpu_init();  // asks the operating system too whether it saves the registers
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      return CpuPath::avx512;
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
  const CpuPath path = wanted == "avx512" ? CpuPath::avx512 : wanted == "avx2" ? CpuPath::avx2 : CpuPath::portable;
  STD_TORCH_CHECK(path != CpuPath::portable || wanted == "portable",
                  "LARGE_KERNEL_CONV_CPU_PATH: expected avx512, avx2 or portable, got ", wanted);
  STD_TORCH_CHECK(path <= best, "LARGE_KERNEL_CONV_CPU_PATH: this processor does not run ", wanted);
  return path;
}

}  // namespace large_kernel_conv
