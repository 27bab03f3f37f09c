// What the tensor-facing code hands to the kernels: plain numbers and pointers, passed by value.
#pragma once

#include "common/device.cuh"
#include "detection_ops_operator/types.h"

namespace detection_ops {

constexpr int kThreads = 128;  // of a block
constexpr int kMostLevels = 16;

struct Level {
  int32_t height, width, start;  // where it starts among the positions
};

template <typename T>
struct AttentionProblem {
  int64_t units;  // of all images; a unit is a query and a head: what has samples of its own
  int64_t positions, queries;
  int32_t heads, channels, levels, points;  // channels of one head, points of one level
  const T* value;                           // (batch, positions, heads, channels)
  const T* locations;                       // (batch, queries, heads, levels, points, 2), fractions of the map
  const T* weights;                         // (batch, queries, heads, levels, points)
  Level level[kMostLevels];

  // The head of a unit in the first position of its image, in `value` or what has its shape
  __device__ int64_t start(int64_t unit) const {
    return (unit / heads / queries * positions * heads + unit % heads) * channels;
  }
};

template <typename T>
struct AttentionGradients {
  const T* output;    // (batch, queries, heads, channels)
  Compute<T>* value;  // each has the shape of what it is the gradient of; this one is zeros to begin with
  T* locations;
  T* weights;
};

struct SuppressProblem {
  const float* boxes;     // (count, 4): left, top, right, bottom; the best first
  const int64_t* groups;  // (count)
  int64_t count, words;   // boxes, and words of a bit for each
  float iou_threshold;
};

// The number of this thread in the grid
__device__ inline int64_t thread_number() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }

}  // namespace detection_ops
