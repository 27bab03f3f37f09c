// What every backend asks of its arguments: geometry, checks, memory that can be read in place.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/checks.h"
#include "types.h"

namespace deformable_conv {

struct Geometry {
  std::vector<int64_t> kernel_size, stride, padding, dilation;
  double offset_scale;
  bool remove_center, softmax;

  int64_t points() const { return kernel_size[0] * kernel_size[1] - (remove_center ? 1 : 0); }
  int64_t output_size(int64_t size, int axis) const {
    return (size + 2 * padding[axis] - dilation[axis] * (kernel_size[axis] - 1) - 1) / stride[axis] + 1;
  }
  int64_t centre(int axis) const { return dilation[axis] * (kernel_size[axis] - 1) / 2; }
};

// The shape of weight; offset has two numbers where weight has one
inline std::vector<int64_t> check(const Tensor& value, const Tensor& offset, const Tensor& weight, const Geometry& g) {
  STD_TORCH_CHECK(value.dim() == 5, "value: expected (N, H, W, G, D), got ", shape_of(sizes_of(value)));
  for (const auto* pair : {&g.kernel_size, &g.stride, &g.padding, &g.dilation})
    STD_TORCH_CHECK(pair->size() == 2, "kernel_size, stride, padding, dilation: expected (height, width), got ",
                    shape_of(*pair));
  for (const auto* pair : {&g.kernel_size, &g.stride, &g.dilation})
    STD_TORCH_CHECK((*pair)[0] > 0 && (*pair)[1] > 0, "kernel_size, stride, dilation: expected at least (1, 1), got ",
                    shape_of(*pair));
  const std::vector<int64_t> expected = {value.size(0), g.output_size(value.size(1), 0),
                                         g.output_size(value.size(2), 1), value.size(3), g.points()};
  std::vector<int64_t> of_offset = expected;
  of_offset.push_back(2);
  check_shape("offset", offset, of_offset);
  check_shape("weight", weight, expected);
  check_like("offset", offset, "value", value);
  check_like("weight", weight, "value", value);
  STD_TORCH_CHECK(value.size(1) < INT32_MAX / std::max<int64_t>(value.size(2), 1),
                  "value: expected fewer than 2^31 pixels in an image, got ", shape_of(sizes_of(value)));
  return expected;
}

inline void check_grad_output(const Tensor& grad_output, const Tensor& value, const std::vector<int64_t>& expected) {
  check_shape("grad_output", grad_output, {expected[0], expected[1], expected[2], value.size(3) * value.size(4)});
  check_like("grad_output", grad_output, "value", value);
}

// The tensor itself where a pixel's numbers lie together and a row is the pixels of its width, else a copy.
inline Tensor with_regular_pixels(const Tensor& value) {
  const bool regular = value.stride(4) == 1 && value.stride(3) == value.size(4) &&
                       (value.size(1) == 1 || value.stride(1) == value.size(2) * value.stride(2));
  return regular ? value : torch::stable::contiguous(value);
}

// The tensor itself where the points of a group lie together, else a copy. This is so for views of a packed tensor.
inline Tensor with_contiguous_points(const Tensor& tensor) {
  int64_t stride = 1;
  for (int64_t axis = tensor.dim() - 1; axis > 3; stride *= tensor.size(axis--))
    if (tensor.stride(axis) != stride && tensor.size(axis) != 1) return torch::stable::contiguous(tensor);
  return tensor;
}

inline PointStrides strides_of(const Tensor& tensor) {
  return {tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)};
}

}  // namespace deformable_conv
