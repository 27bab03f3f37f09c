// The path for every processor, compiled without extra instruction sets.
#define CPU_PATH portable
#include "channel_lanes.h"

namespace large_kernel_conv::portable {
template <typename A>
using Channels = ChannelLanes<A, 16 / sizeof(A), 2, 4>;
}  // namespace large_kernel_conv::portable

#include "all_types.h"
