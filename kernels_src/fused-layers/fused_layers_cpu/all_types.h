// The functions of a path for every type; to be included last by the path's file.
#pragma once

#include "attend.h"
#include "batch_norm.h"
#include "depthwise.h"
#include "gelu_backward.h"
#include "mix_scales.h"
#include "pointwise.h"
#include "product.h"

namespace fused_layers::CPU_PATH {

#define INSTANTIATE(T)                                                                          \
  template void layer_norm<T>(const Norm<T>&, const T*, T*, int64_t, int64_t);                  \
  template void add_layer_norm<T>(const Norm<T>&, const Residual<T>&, T*, int64_t, int64_t);    \
  template void gelu<T>(const T*, T*, int64_t, int64_t);                                        \
  template void gelu_backward<T>(const T*, const T*, T*, int64_t, int64_t);                     \
  template void depthwise_norm_gelu<T>(const Depthwise<T>&, const Norm<T>&, T*, int64_t, int64_t); \
  template void add_depthwise_gelu<T>(const Depthwise<T>&, T*, int64_t, int64_t);                 \
  template void attend<T>(const Attention<T>&, T*, int64_t, int64_t);                              \
  template void fold<T>(const Mixing<T>&, Compute<T>*);                                           \
  template void mix_scales<T>(const Mixing<T>&, const Compute<T>*, T*, int64_t, int64_t);          \
  template void multiply<T>(const Product<T>&, int64_t, int64_t, int64_t, int64_t);             \
  template int64_t panel_count<T>(int64_t);
FOR_EACH_TYPE(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fused_layers::CPU_PATH
