// The path for processors that also round to bfloat16 in one instruction (Cooper Lake, Zen 4 and later).
#define CPU_PATH avx512_bf16
#include "common/lanes_avx512.h"
#include "problem.h"

namespace fused_layers::avx512_bf16 {

using namespace common::avx512_bf16;

template <typename T>
struct Path {
  using Vector = Floats16;
};
template <>
struct Path<double> {
  using Vector = Lanes<double, 8>;
};
}  // namespace fused_layers::avx512_bf16

#include "all_types.h"
