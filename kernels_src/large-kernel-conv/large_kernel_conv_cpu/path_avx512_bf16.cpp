// The path for bfloat16 on processors with AVX-512 BF16 (Cooper Lake, Zen 4 and later), compiled for them (see
// build.toml).
#define CPU_PATH avx512_bf16
#include "pairs.h"

namespace large_kernel_conv::avx512_bf16 {
template <typename>
using Channels = PairLanes;
}  // namespace large_kernel_conv::avx512_bf16

#include "fourier_rule.h"
#include "tasks.h"

namespace large_kernel_conv::avx512_bf16 {
template <>
void convolve(const Convolution<BFloat16>& p, int64_t begin, int64_t end) {
  if (fourier_is_faster(p.size, PairLanes::kTaps))
    avx512::convolve(p, begin, end);  // in float32
  else
    convolve_directly(p, begin, end);
}
template void differentiate_weight<BFloat16>(const WeightGradient<BFloat16>&, int64_t, int64_t);
}  // namespace large_kernel_conv::avx512_bf16
