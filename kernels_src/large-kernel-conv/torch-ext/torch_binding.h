#pragma once

#include "depthwise_conv2d.h"
#ifdef CPU_KERNEL
#include "large_kernel_conv_cpu.h"
#endif
