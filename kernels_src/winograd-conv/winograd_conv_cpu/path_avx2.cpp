// The path for processors with AVX2 and FMA (Haswell, Zen and later), compiled for them (see build.toml).
#define CPU_PATH avx2
#include "common/lanes_avx2.h"
#include "problem.h"

namespace winograd_conv::avx2 {

using namespace common::avx2;

struct Path {
  using Vector = Floats8;
  static constexpr int kRows = 6;  // whose sums, with what they are made of, fill the registers
};
}  // namespace winograd_conv::avx2

#include "tasks.h"
