// From tensors to the kernels.
#include "deformable_conv_operator/checks.h"
#include "deformable_conv_operator/deformable_aggregate.h"
#include "launch.cuh"

namespace deformable_conv {
namespace {

template <typename T>
Problem<T> make_problem(const Tensor& value, const Tensor& offset, const Tensor& weight, const Geometry& g) {
  using A = Compute<T>;
  Problem<T> p{};
  p.batch = value.size(0), p.height = value.size(1), p.width = value.size(2);
  p.groups = value.size(3), p.channels = value.size(4);
  p.out_height = offset.size(1), p.out_width = offset.size(2), p.points = g.points();
  p.value = static_cast<const T*>(value.const_data_ptr());
  p.image_stride = value.stride(0), p.pixel_stride = value.size(2) > 1 ? value.stride(2) : value.stride(1);
  p.right = p.width > 1 ? p.pixel_stride : 0;
  p.below = p.height > 1 ? int64_t(p.width) * p.pixel_stride : 0;
  p.offset = static_cast<const T*>(offset.const_data_ptr()), p.offset_strides = strides_of(offset);
  p.weight = static_cast<const T*>(weight.const_data_ptr()), p.weight_strides = strides_of(weight);
  p.softmax = g.softmax;
  p.kernel_height = g.kernel_size[0], p.inverse_kernel_height = 1.0f / float(g.kernel_size[0]);
  p.removed_point = g.remove_center ? g.kernel_size[0] * g.kernel_size[1] / 2 : p.points;
  p.dilation_x = g.dilation[1], p.dilation_y = g.dilation[0], p.centre_x = g.centre(1), p.centre_y = g.centre(0);
  p.origin_x = A(g.centre(1) - g.padding[1]), p.origin_y = A(g.centre(0) - g.padding[0]);
  p.stride_x = A(g.stride[1]), p.stride_y = A(g.stride[0]), p.offset_scale = A(g.offset_scale);
  return p;
}

// The kernels count an image's units, and a pixel's numbers, in 32 bits.
Tensor check_sizes(const Tensor& value, const std::vector<int64_t>& expected) {
  STD_TORCH_CHECK(expected[1] < INT32_MAX / (expected[2] * expected[3]),
                  "weight: expected fewer than 2^31 output pixels times groups in an image, got ", shape_of(expected));
  STD_TORCH_CHECK(value.size(3) < INT32_MAX / value.size(4) && expected[4] < 1 << 22,
                  "value, weight: expected fewer than 2^31 channels and 2^22 points, got ", shape_of(sizes_of(value)),
                  " and ", shape_of(expected));
  const Tensor regular = with_regular_pixels(value);
  return std::max(regular.stride(1), regular.stride(2)) < INT32_MAX ? regular : torch::stable::contiguous(value);
}

std::string shapes_of(const Tensor& value, const std::vector<int64_t>& weight_sizes) {
  return "value " + shape_of(sizes_of(value)) + ", weight " + shape_of(weight_sizes);
}

}  // namespace
}  // namespace deformable_conv

using namespace deformable_conv;

Tensor deformable_aggregate_forward(const Tensor& value, const Tensor& offset, const Tensor& weight,
                                    std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                                    std::vector<int64_t> padding, std::vector<int64_t> dilation, double offset_scale,
                                    bool remove_center, bool softmax) {
  const Geometry geometry{kernel_size, stride, padding, dilation, offset_scale, remove_center, softmax};
  const std::vector<int64_t> expected = check(value, offset, weight, geometry);
  const torch::stable::accelerator::DeviceGuard guard(value.get_device_index());
  Tensor output =
      torch::stable::new_empty(value, {expected[0], expected[1], expected[2], value.size(3) * value.size(4)});
  if (output.numel() == 0) return output;
  if (value.numel() == 0 || geometry.points() == 0) return torch::stable::zero_(output);

  const Tensor regular = check_sizes(value, expected);
  const Tensor offsets = with_contiguous_points(offset), weights = with_contiguous_points(weight);
  dispatch_type("value", value, [&](auto zero) {
    using T = decltype(zero);
    const cudaError_t error = launch_forward(make_problem<T>(regular, offsets, weights, geometry),
                                             static_cast<T*>(output.mutable_data_ptr()), current_stream(value));
    check_launch(error, "deformable_aggregate_forward", shapes_of(value, expected));
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> deformable_aggregate_backward(
    const Tensor& grad_output, const Tensor& value, const Tensor& offset, const Tensor& weight,
    std::vector<int64_t> kernel_size, std::vector<int64_t> stride, std::vector<int64_t> padding,
    std::vector<int64_t> dilation, double offset_scale, bool remove_center, bool softmax, bool deterministic) {
  const Geometry geometry{kernel_size, stride, padding, dilation, offset_scale, remove_center, softmax};
  const std::vector<int64_t> expected = check(value, offset, weight, geometry);
  check_grad_output(grad_output, value, expected);
  const torch::stable::accelerator::DeviceGuard guard(value.get_device_index());
  Tensor grad_value = torch::stable::new_empty(value, sizes_of(value));
  Tensor grad_offset = torch::stable::new_empty(offset, sizes_of(offset));
  Tensor grad_weight = torch::stable::new_empty(weight, sizes_of(weight));
  if (value.numel() == 0 || weight.numel() == 0) {
    for (Tensor* gradient : {&grad_value, &grad_offset, &grad_weight}) torch::stable::zero_(*gradient);
    return {grad_value, grad_offset, grad_weight};
  }

  const Tensor gradient = torch::stable::contiguous(grad_output), regular = check_sizes(value, expected);
  const Tensor offsets = with_contiguous_points(offset), weights = with_contiguous_points(weight);
  // added up in float32 at least, and rounded once
  const bool is_double = value.scalar_type() == ScalarType::Double;
  Tensor sums = torch::stable::new_zeros(value, sizes_of(value), is_double ? ScalarType::Double : ScalarType::Float);
  dispatch_type("value", value, [&](auto zero) {
    using T = decltype(zero);
    const Gradients<T> gradients{
        static_cast<const T*>(gradient.const_data_ptr()), static_cast<Compute<T>*>(sums.mutable_data_ptr()),
        static_cast<T*>(grad_offset.mutable_data_ptr()), static_cast<T*>(grad_weight.mutable_data_ptr())};
    const cudaError_t error = launch_backward(make_problem<T>(regular, offsets, weights, geometry), gradients,
                                              !deterministic, current_stream(value));
    check_launch(error, "deformable_aggregate_backward", shapes_of(value, expected));
  });
  if (sums.scalar_type() == value.scalar_type()) return {sums, grad_offset, grad_weight};
  return {torch::stable::copy_(grad_value, sums), grad_offset, grad_weight};
}
