#pragma once

#include "deformable_aggregate.h"
#ifdef CPU_KERNEL
#include "deformable_conv_cpu.h"
#endif
