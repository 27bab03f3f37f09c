// What the operators ask of their arguments.
#pragma once

#include "common/checks.h"

namespace fused_layers {

using namespace common;

inline int64_t channels_of(const Tensor& input) {
  STD_TORCH_CHECK(input.dim() > 0, "input: expected (..., C), got ()");
  return input.size(input.dim() - 1);
}

// A parameter of (C) in the dtype of the input.
inline void check_parameter(const char* name, const Tensor& parameter, const Tensor& input) {
  check_shape(name, parameter, {channels_of(input)});
  check_like(name, parameter, "input", input);
}

}  // namespace fused_layers
