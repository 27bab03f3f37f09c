// The path for processors with AVX-512 F, BW, DQ and VL (Skylake-X and later), compiled for them (see build.toml).
#define CPU_PATH avx512
#include "common/lanes_avx512.h"
#include "problem.h"

namespace winograd_conv::avx512 {

using namespace common::avx512;

struct Path {
  using Vector = Floats16;
  static constexpr int kRows = 12;  // whose sums, with what they are made of, fill the registers
};
}  // namespace winograd_conv::avx512

#include "tasks.h"
