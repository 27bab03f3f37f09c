// The path for processors with AVX-512 F, BW, DQ and VL (Skylake-X, Zen 4 and later), compiled for them (see
// build.toml).
#define CPU_PATH avx512
#include "channel_lanes.h"

namespace large_kernel_conv::avx512 {
template <typename A>
using Channels = ChannelLanes<A, 64 / sizeof(A), 3, 8>;
}  // namespace large_kernel_conv::avx512

#include "all_types.h"
