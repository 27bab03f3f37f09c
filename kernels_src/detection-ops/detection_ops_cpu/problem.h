// What the tensor-facing code hands to the compute paths: plain numbers and pointers, without code of their own (see
// common/types.h).
#pragma once

#include "detection_ops_operator/types.h"

namespace detection_ops {

template <typename T>
struct AttentionProblem {
  int64_t batch, positions, queries, heads, channels;  // channels of one head
  int64_t points;                                      // of all levels
  const T* value;                                      // (batch, positions, heads, channels)
  const T* locations;                                  // (batch, queries, heads, points, 2), fractions of the map
  const T* weights;                                    // (batch, queries, heads, points)
  // of the level of each point, with room for whole vectors: its size, and where it starts among the positions
  const Compute<T>*width, *height, *start;
};

template <typename T>
struct AttentionGradients {
  const T* output;  // (batch, queries, heads, channels)
  T* value;         // each has the shape of what it is the gradient of
  T* locations;
  T* weights;
};

struct SuppressProblem {
  const float* boxes;      // (count, 4): left, top, right, bottom; the best first
  const int64_t* members;  // (count), the numbers of the boxes group by group, the best of each first
  const int64_t* first;    // where in `members` each group begins, and the last ends
  float iou_threshold;
  bool* stays;  // (count)
};

constexpr int64_t kBlock = 16;  // channels of a region that are pooled together: some whole vectors on every path

// Each path computes some tasks, [begin, end), that share no output: of (batch, queries) for attention and of (batch,
// heads) for its gradients, regions, of (images, ceil(channels / kBlock)) for theirs, groups of boxes.
#define DECLARE_PATH(path)                                                                                      \
  namespace path {                                                                                              \
  template <typename T>                                                                                         \
  void attend(const AttentionProblem<T>&, T* output, int64_t begin, int64_t end);                               \
  template <typename T>                                                                                         \
  void attend_backward(const AttentionProblem<T>&, const AttentionGradients<T>&, int64_t begin, int64_t end);   \
  template <typename T>                                                                                         \
  void roi_align(const RoiProblem<T>&, const T* features, T* output, int64_t begin, int64_t end);               \
  template <typename T>                                                                                         \
  void roi_align_backward(const RoiProblem<T>&, const T* grad_output, T* gradient, int64_t begin, int64_t end); \
  void suppress(const SuppressProblem&, int64_t begin, int64_t end);                                            \
  }
DECLARE_PATH(portable)
DECLARE_PATH(avx2)
DECLARE_PATH(avx512)
#undef DECLARE_PATH

}  // namespace detection_ops
