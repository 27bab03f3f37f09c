// Compute paths: the same code compiled for several instruction sets, of which one is chosen when it runs.
//
// A file path_<name>.cpp compiles a path with the flags that build.toml gives it. It defines CPU_PATH as its name, and
// everything that it includes lies in namespaces of that name, so that no path runs another's instructions.
#pragma once

#include <cstdlib>
#include <initializer_list>
#include <string>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <torch/headeronly/util/Exception.h>

// The name of the path that runs now; every kernel defines it.
std::string cpu_path();

namespace common {

// avx512_vnni adds instructions for 8-bit numbers to avx512, avx512_bf16 adds some for bfloat16 to these, and amx adds
// to avx512 its own for bfloat16.
enum class CpuPath { portable, avx2, avx512, avx512_vnni, avx512_bf16, amx };

inline const char* name_of(CpuPath path) {
  constexpr const char* kNames[] = {"portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"};
  return kNames[int(path)];
}

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

// Whether this processor, and the operating system, which must save the registers, run a path.
inline bool runs(CpuPath path) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (path) {
    case CpuPath::portable:
      return true;
    case CpuPath::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    case CpuPath::avx512:
      return runs(CpuPath::avx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    case CpuPath::avx512_vnni:
      return runs(CpuPath::avx512) && __builtin_cpu_supports("avx512vnni");
    case CpuPath::avx512_bf16:
      return runs(CpuPath::avx512_vnni) && __builtin_cpu_supports("avx512bf16");
    case CpuPath::amx:
      return runs(CpuPath::avx512) && has_amx();
  }
#endif
  return path == CpuPath::portable;
}

// The paths of one kernel.
class CpuPaths {
 public:
  // `paths` begins with the best and ends with portable; `variable` is an environment variable by which tests choose.
  CpuPaths(const char* variable, std::initializer_list<CpuPath> paths) : variable_(variable) {
    for (CpuPath path : paths) {
      const char* const separator = path == CpuPath::portable ? " or " : expected_.empty() ? "" : ", ";
      expected_ += separator + std::string(name_of(path));
      usable_[int(path)] = runs(path);
      known_[int(path)] = true;
      if (usable_[int(path)] && best_ < path) best_ = path;
    }
  }

  // The best path that this processor runs, or the one that the environment names.
  CpuPath choose() const {
    const char* const wanted = std::getenv(variable_);
    if (!wanted || !*wanted) return best_;
    for (int path = 0; path < kCount; ++path) {
      if (!known_[path] || std::string(wanted) != name_of(CpuPath(path))) continue;
      STD_TORCH_CHECK(usable_[path], variable_, ": this processor does not run ", wanted);
      return CpuPath(path);
    }
    STD_TORCH_CHECK(false, variable_, ": expected ", expected_, ", got ", wanted);
  }

 private:
  static constexpr int kCount = int(CpuPath::amx) + 1;
  const char* variable_;
  std::string expected_;  // for the error message
  bool known_[kCount] = {}, usable_[kCount] = {};
  CpuPath best_ = CpuPath::portable;
};

}  // namespace common

// The function of a path, for those that every kernel has.
#if defined(__x86_64__)
#define ON_CPU_PATH(PATH, ...)                      \
  ((PATH) >= CpuPath::avx512 ? &avx512::__VA_ARGS__ \
   : (PATH) == CpuPath::avx2 ? &avx2::__VA_ARGS__   \
                             : &portable::__VA_ARGS__)
#else
#define ON_CPU_PATH(PATH, ...) (&portable::__VA_ARGS__)
#endif
