// The path for processors with AVX2 and FMA (Haswell, Zen and later), compiled for them (see build.toml).
#define LARGE_KERNEL_CONV_PATH avx2
#include "lanes.h"

namespace large_kernel_conv::avx2 {
template <typename A>
using Channels = Lanes<A, 32 / sizeof(A), 2, 5>;
}  // namespace large_kernel_conv::avx2

#include "all_types.h"
