#pragma once

#include "large_kernel_conv_cpu.h"
