// What every operator asks of its tensors, and the way from a tensor's dtype to a C++ type.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "types.h"

namespace common {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_of(const std::vector<int64_t>& sizes) {
  std::ostringstream text;
  text << "(";
  for (size_t i = 0; i < sizes.size(); ++i) text << (i ? ", " : "") << sizes[i];
  text << ")";
  return text.str();
}

inline std::vector<int64_t> sizes_of(const Tensor& tensor) {
  return std::vector<int64_t>(tensor.sizes().begin(), tensor.sizes().end());
}

inline void check_shape(const char* name, const Tensor& tensor, const std::vector<int64_t>& expected) {
  const std::vector<int64_t> actual = sizes_of(tensor);
  STD_TORCH_CHECK(actual == expected, name, ": expected ", shape_of(expected), ", got ", shape_of(actual));
}

inline std::string device_of(const Tensor& tensor) {
  return tensor.is_cpu() ? "cpu" : "cuda:" + std::to_string(tensor.get_device_index());
}

// `tensor` must have the dtype and the device of `like`, the argument called `like_name`.
inline void check_like(const char* name, const Tensor& tensor, const char* like_name, const Tensor& like) {
  STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), name, " and ", like_name, " must share a dtype");
  STD_TORCH_CHECK(device_of(tensor) == device_of(like), name, ": expected to be on ", device_of(like), " like ",
                  like_name, ", got ", device_of(tensor));
}

// Calls f with a number of the C++ type of `tensor`, the argument called `name`.
template <typename F>
void dispatch_type(const char* name, const Tensor& tensor, F f) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return f(float());
    case ScalarType::Double:
      return f(double());
    case ScalarType::BFloat16:
      return f(BFloat16());
    case ScalarType::Half:
      return f(Half());
    default:
      STD_TORCH_CHECK(false, name, ": expected float32, float64, bfloat16 or float16");
  }
}

}  // namespace common
