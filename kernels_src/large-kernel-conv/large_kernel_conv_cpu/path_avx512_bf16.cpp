// The path for bfloat16 on processors with AVX-512 BF16 (Cooper Lake, Zen 4 and later), compiled for them (see
// build.toml).
#define LARGE_KERNEL_CONV_PATH avx512_bf16
#include "pairs.h"

namespace large_kernel_conv::avx512_bf16 {
template <typename>
using Channels = PairLanes;
}  // namespace large_kernel_conv::avx512_bf16

#include "tasks.h"

namespace large_kernel_conv::avx512_bf16 {
template void convolve<BFloat16>(const Convolution<BFloat16>&, int64_t, int64_t);
template void differentiate_weight<BFloat16>(const WeightGradient<BFloat16>&, int64_t, int64_t);
}  // namespace large_kernel_conv::avx512_bf16
