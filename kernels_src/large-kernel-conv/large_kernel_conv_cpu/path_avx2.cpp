// The path for processors with AVX2 and FMA (Haswell, Zen and later), compiled for them (see build.toml).
#define CPU_PATH avx2
#include "channel_lanes.h"

namespace large_kernel_conv::avx2 {
template <typename A>
using Channels = ChannelLanes<A, 32 / sizeof(A), 2, 5>;
}  // namespace large_kernel_conv::avx2

#include "all_types.h"
