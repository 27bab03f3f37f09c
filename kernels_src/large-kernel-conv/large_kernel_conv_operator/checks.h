// What every backend asks of its arguments: geometry, checks, views of memory.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/checks.h"
#include "types.h"

namespace large_kernel_conv {

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
  check_like("weight", weight, "input", input);
  if (bias) {
    check_shape("bias", *bias, {size.channels});
    check_like("bias", *bias, "input", input);
  }
  return size;
}

inline Geometry check_backward_weight(const Tensor& grad_output, const Tensor& input,
                                      const std::vector<int64_t>& kernel_size) {
  const Geometry size = geometry_of("input", input, kernel_size);
  check_shape("grad_output", grad_output, sizes_of(input));
  check_like("grad_output", grad_output, "input", input);
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

}  // namespace large_kernel_conv
