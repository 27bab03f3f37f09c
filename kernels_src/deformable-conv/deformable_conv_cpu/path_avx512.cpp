// The path for processors with AVX-512 F, BW, DQ and VL (Skylake-X, Zen 4 and later), compiled for them (see
// build.toml).
#define CPU_PATH avx512
#include "common/lanes_avx512.h"
#include "problem.h"

namespace deformable_conv::avx512 {

using namespace common::avx512;

template <typename T>
struct Path {
  using Vector = Floats16;
  static constexpr bool kSpecialised = true;
};
template <>
struct Path<double> {
  using Vector = Lanes<double, 8>;
  static constexpr bool kSpecialised = false;
};
}  // namespace deformable_conv::avx512

#include "backward.h"
