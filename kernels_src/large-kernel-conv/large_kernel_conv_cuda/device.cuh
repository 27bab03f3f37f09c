// How these kernels use the device.
#pragma once

#include "common/device.cuh"
#include "common/tensor_cores.cuh"
#include "large_kernel_conv_operator/types.h"

namespace large_kernel_conv {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;  // of a block, at most

// Blocks on a multiprocessor at a time: as many as leave registers enough to spill none
template <typename T>
constexpr int kMinBlocksPerMultiprocessor = sizeof(T) == 8 ? 1 : 2;

// float32 and float64 are computed on CUDA cores: tensor cores would round them.
template <typename T>
constexpr bool kUsesTensorCores = sizeof(T) == 2;

}  // namespace large_kernel_conv
