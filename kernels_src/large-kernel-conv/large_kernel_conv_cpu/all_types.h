// The last lines of a path for all types: its convolution, and its code for each type.
#pragma once

#include "convolve_fourier.h"

namespace large_kernel_conv::CPU_PATH {

template <typename T>
void convolve(const Convolution<T>& p, int64_t begin, int64_t end) {
  if (fourier_is_faster(p.size, 1))
    convolve_by_fourier(p, begin, end);
  else
    convolve_directly(p, begin, end);
}

#define INSTANTIATE(T)                                                               \
  template int64_t channel_block<T>();                                               \
  template void convolve<T>(const Convolution<T>&, int64_t, int64_t);                \
  template void differentiate_weight<T>(const WeightGradient<T>&, int64_t, int64_t); \
  template void differentiate_bias<T>(const BiasGradient<T>&, int64_t, int64_t);
FOR_EACH_TYPE(INSTANTIATE)
#undef INSTANTIATE

}  // namespace large_kernel_conv::CPU_PATH
