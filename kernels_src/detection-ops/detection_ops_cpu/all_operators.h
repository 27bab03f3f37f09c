// Instantiates a path's functions for each type of numbers.
#pragma once

#include "attention_gradients.h"
#include "roi_align.h"
#include "suppress.h"

namespace detection_ops::CPU_PATH {

#define INSTANTIATE(T)                                                                                          \
  template void attend<T>(const AttentionProblem<T>&, T*, int64_t, int64_t);                                    \
  template void attend_backward<T>(const AttentionProblem<T>&, const AttentionGradients<T>&, int64_t, int64_t); \
  template void roi_align<T>(const RoiProblem<T>&, const T*, T*, int64_t, int64_t);                             \
  template void roi_align_backward<T>(const RoiProblem<T>&, const T*, T*, int64_t, int64_t);
FOR_EACH_TYPE(INSTANTIATE)
#undef INSTANTIATE

}  // namespace detection_ops::CPU_PATH
