// What the backends share: plain data without code of its own (see common/types.h).
#pragma once

#include "common/types.h"

namespace detection_ops {

using namespace common;

// Element strides of features (batch, channels, height, width).
struct FeatureStrides {
  int64_t image, channel, row, column;
};

template <typename T>
struct RoiProblem {
  int64_t images, channels, height, width;
  FeatureStrides strides;      // of the features, or of their gradient
  int64_t count, output_size;  // regions, and bins of a side
  const Compute<T>* rois;      // (count, 5): image, left, top, right, bottom
  Compute<T> spatial_scale;
};

}  // namespace detection_ops
