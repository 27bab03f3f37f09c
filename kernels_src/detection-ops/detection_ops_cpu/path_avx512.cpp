// The path for processors with AVX-512 F, BW, DQ and VL (Skylake-X, Zen 4 and later), compiled for them (see
// build.toml).
#define CPU_PATH avx512
#include "common/lanes_avx512.h"
#include "problem.h"

namespace detection_ops::avx512 {

using namespace common::avx512;

template <typename T>
struct Path {
  using Vector = Floats16;
};
template <>
struct Path<double> {
  using Vector = Lanes<double, 8>;
};
}  // namespace detection_ops::avx512

#include "all_operators.h"
