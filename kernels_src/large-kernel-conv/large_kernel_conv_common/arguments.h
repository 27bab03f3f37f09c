// What every backend asks of its arguments: geometry, checks, views of memory.
#pragma once

#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "types.h"

namespace large_kernel_conv {

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

inline void check_like(const char* name, const Tensor& tensor, const Tensor& input) {
  STD_TORCH_CHECK(tensor.scalar_type() == input.scalar_type(), name, ": its dtype differs from that of input");
  STD_TORCH_CHECK(device_of(tensor) == device_of(input), name, ": expected to be on ", device_of(input),
                  " like input, got ", device_of(tensor));
}

inline Geometry geometry_of(const char* name, const Tensor& input, const std::vector<int64_t>& kernel_size) {
  STD_TORCH_CHECK(input.dim() == 4, name, ": expected (N, C, H, W), got ", shape_of(sizes_of(input)));
  STD_TORCH_CHECK(kernel_size.size() == 2 && kernel_size[0] > 0 && kernel_size[1] > 0 && kernel_size[0] % 2 == 1 &&
                      kernel_size[1] % 2 == 1,
                  "kernel_size: expected two odd numbers, got ", shape_of(kernel_size));
  return {input.size(0), input.size(1), input.size(2), input.size(3), kernel_size[0], kernel_size[1]};
}

inline Geometry check_forward(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias) {
  STD_TORCH_CHECK(weight.dim() == 4, "weight: expected (C, 1, KH, KW), got ", shape_of(sizes_of(weight)));
  const Geometry size = geometry_of("input", input, {weight.size(2), weight.size(3)});
  check_shape("weight", weight, {size.channels, 1, size.kernel_height, size.kernel_width});
  check_like("weight", weight, input);
  if (bias) {
    check_shape("bias", *bias, {size.channels});
    check_like("bias", *bias, input);
  }
  return size;
}

inline Geometry check_backward_weight(const Tensor& grad_output, const Tensor& input,
                                      const std::vector<int64_t>& kernel_size) {
  const Geometry size = geometry_of("input", input, kernel_size);
  check_shape("grad_output", grad_output, sizes_of(input));
  check_like("grad_output", grad_output, input);
  return size;
}

template <typename T>
View<const T> view_of(const Tensor& tensor) {
  return {static_cast<const T*>(tensor.const_data_ptr()), tensor.stride(0), tensor.stride(1), tensor.stride(2),
          tensor.stride(3)};
}
template <typename T>
View<T> mutable_view_of(Tensor& tensor) {
  return {static_cast<T*>(tensor.mutable_data_ptr()), tensor.stride(0), tensor.stride(1), tensor.stride(2),
          tensor.stride(3)};
}
template <typename T>
View<const T> weight_view_of(const Tensor& weight) {  // (C, 1, KH, KW)
  return {static_cast<const T*>(weight.const_data_ptr()), 0, weight.stride(0), weight.stride(2), weight.stride(3)};
}

// Call f with a number of the storage type
template <typename F>
void dispatch_type(ScalarType type, F f) {
  switch (type) {
    case ScalarType::Float:
      return f(float());
    case ScalarType::Double:
      return f(double());
    case ScalarType::BFloat16:
      return f(BFloat16());
    case ScalarType::Half:
      return f(Half());
    default:
      STD_TORCH_CHECK(false, "input: expected float32, float64, bfloat16 or float16");
  }
}

}  // namespace large_kernel_conv
