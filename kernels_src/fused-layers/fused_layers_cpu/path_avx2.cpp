// The path for processors with AVX2, FMA and F16C (Haswell, Zen and later), compiled for them (see build.toml).
#define CPU_PATH avx2
#include "common/lanes_avx2.h"
#include "problem.h"

namespace fused_layers::avx2 {

using namespace common::avx2;

template <typename T>
struct Path {
  using Vector = Floats8;
};
template <>
struct Path<double> {
  using Vector = Lanes<double, 4>;
};
}  // namespace fused_layers::avx2

#include "all_types.h"
