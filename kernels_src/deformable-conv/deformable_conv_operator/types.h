// How the memory of the operator's tensors is walked.
#pragma once

#include "common/types.h"

namespace deformable_conv {

using namespace common;

// Element strides of an offset or weight tensor; its points are contiguous.
struct PointStrides {
  int64_t image, row, column, group;
};

}  // namespace deformable_conv
