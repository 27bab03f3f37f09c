// What the backends share: plain data without code of its own (see common/types.h).
#pragma once

#include "common/types.h"

namespace detection_ops {

using namespace common;

// Element strides of features (batch, channels, height, width).
struct FeatureStrides {
  int64_t image, channel, row, column;
};

}  // namespace detection_ops
