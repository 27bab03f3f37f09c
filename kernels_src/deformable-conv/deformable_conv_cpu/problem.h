// What the tensor-facing code hands to the compute paths: plain numbers and pointers, without code of their own (see
// common/types.h).
#pragma once

#include "deformable_conv_operator/types.h"

namespace deformable_conv {

template <typename T>
struct Problem {
  int64_t batch, height, width, groups, channels;  // of value; channels of one group
  int64_t out_height, out_width;
  int64_t points;
  const T* value;        // (batch, height, width, groups, channels); the last two are contiguous
  int64_t image_stride;  // elements from one image of value to the next,
  int64_t pixel_stride;  // and from one pixel to the next: a row is width pixels
  const T* offset;       // (batch, out_height, out_width, groups, points, 2)
  PointStrides offset_strides;
  const T* weight;  // (batch, out_height, out_width, groups, points)
  PointStrides weight_strides;
  bool softmax;
  // Point k of the output at (row, column) samples value at
  //   x = column * stride_x + origin_x + (grid_x[k] + offset_x) * offset_scale, y alike
  const Compute<T>* grid_x;
  const Compute<T>* grid_y;  // both padded with zeros to a multiple of 16 points
  Compute<T> origin_x, origin_y, stride_x, stride_y, offset_scale;
};

template <typename T>
struct Gradients {
  const T* output;      // (batch, out_height, out_width, groups, channels), contiguous, as are those below
  T* value;             // (batch, height, width, groups, channels)
  T* offset;            // (batch, out_height, out_width, groups, points, 2)
  T* weight;            // (batch, out_height, out_width, groups, points)
  int64_t group_block;  // groups in one task
};

// Each path computes the output pixels [begin, end) of the flattened (batch, out_height, out_width), or the gradient
// tasks [begin, end) of the flattened (batch, ceil(groups / group_block)). Tasks share no output element.
#define DECLARE_PATH(path)                                                           \
  namespace path {                                                                   \
  template <typename T>                                                              \
  void forward(const Problem<T>&, T* output, int64_t begin, int64_t end);            \
  template <typename T>                                                              \
  void backward(const Problem<T>&, const Gradients<T>&, int64_t begin, int64_t end); \
  }
DECLARE_PATH(portable)
DECLARE_PATH(avx2)
DECLARE_PATH(avx512)
#undef DECLARE_PATH

}  // namespace deformable_conv
