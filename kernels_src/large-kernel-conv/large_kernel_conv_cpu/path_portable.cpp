// The path for every processor, compiled without extra instruction sets.
#define LARGE_KERNEL_CONV_PATH portable
#include "lanes.h"

namespace large_kernel_conv::portable {
template <typename A>
using Channels = Lanes<A, 16 / sizeof(A), 2, 4>;
}  // namespace large_kernel_conv::portable

#include "all_types.h"
