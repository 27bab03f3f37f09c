// The last lines of a path for all types: its code for each.
#pragma once

#include "tasks.h"

namespace large_kernel_conv::LARGE_KERNEL_CONV_PATH {

#define LARGE_KERNEL_CONV_INSTANTIATE(T)                                             \
  template int64_t channel_block<T>();                                               \
  template void convolve<T>(const Convolution<T>&, int64_t, int64_t);                \
  template void differentiate_weight<T>(const WeightGradient<T>&, int64_t, int64_t); \
  template void differentiate_bias<T>(const BiasGradient<T>&, int64_t, int64_t);
LARGE_KERNEL_CONV_INSTANTIATE(float)
LARGE_KERNEL_CONV_INSTANTIATE(double)
LARGE_KERNEL_CONV_INSTANTIATE(BFloat16)
LARGE_KERNEL_CONV_INSTANTIATE(Half)
#undef LARGE_KERNEL_CONV_INSTANTIATE

}  // namespace large_kernel_conv::LARGE_KERNEL_CONV_PATH
