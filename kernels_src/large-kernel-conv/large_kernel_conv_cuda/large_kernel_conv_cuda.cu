// From tensors to the kernels.
#include <algorithm>

#include "large_kernel_conv_operator/checks.h"
#include "large_kernel_conv_operator/depthwise_conv2d.h"
#include "launch.cuh"

namespace large_kernel_conv {
namespace {

constexpr int64_t kLargestKernel = 51;  // for which shared memory is enough with every type

Tiling tiling_of(const Geometry& g) {
  STD_TORCH_CHECK(g.kernel_height <= kLargestKernel && g.kernel_width <= kLargestKernel,
                  "kernel_size: expected at most (51, 51) on a GPU, got ", shape_of({g.kernel_height, g.kernel_width}));
  STD_TORCH_CHECK(g.channels < INT32_MAX / 2 && g.height < INT32_MAX / g.width / 2,
                  "input: expected fewer than 2^30 channels and 2^30 pixels in an image, got ",
                  shape_of({g.batch, g.channels, g.height, g.width}));
  Tiling size{};
  size.batch = g.batch, size.channels = g.channels, size.height = g.height, size.width = g.width;
  size.kernel_height = g.kernel_height, size.kernel_width = g.kernel_width;
  return size;
}

std::string shapes_of(const Tensor& input, const Geometry& g) {
  return "input " + shape_of(sizes_of(input)) + ", kernel_size " + shape_of({g.kernel_height, g.kernel_width});
}

// Summed in float32 at least, and rounded once
Tensor sum_over(const Tensor& sums, std::vector<int64_t> axes, ScalarType type) {
  const Tensor total = torch::stable::sum(sums, axes);
  if (total.scalar_type() == type) return total;
  Tensor rounded = torch::stable::new_empty(total, sizes_of(total), type);
  return torch::stable::copy_(rounded, total);
}

}  // namespace
}  // namespace large_kernel_conv

using namespace large_kernel_conv;

Tensor depthwise_conv2d_forward(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias) {
  const Geometry geometry = check_forward(input, weight, bias);
  const torch::stable::accelerator::DeviceGuard guard(input.get_device_index());
  Tensor output = torch::stable::empty_like(input);
  if (output.numel() == 0) return output;
  std::optional<Tensor> numbers;
  if (bias) numbers = torch::stable::contiguous(*bias);
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    Convolution<T> p{};
    p.size = tiling_of(geometry);
    p.input.view = view_of<T>(input), p.weight = weight_view_of<T>(weight), p.output.view = mutable_view_of<T>(output);
    p.bias = numbers ? static_cast<const T*>(numbers->const_data_ptr()) : nullptr;
    check_launch(launch_convolution(p, current_stream(input)), "depthwise_conv2d_forward", shapes_of(input, geometry));
  });
  return output;
}

Tensor depthwise_conv2d_backward_weight(const Tensor& grad_output, const Tensor& input,
                                        std::vector<int64_t> kernel_size) {
  const Geometry geometry = check_backward_weight(grad_output, input, kernel_size);
  const torch::stable::accelerator::DeviceGuard guard(input.get_device_index());
  const std::vector<int64_t> shape = {geometry.channels, 1, geometry.kernel_height, geometry.kernel_width};
  if (input.numel() == 0) return torch::stable::new_zeros(input, shape);
  std::optional<Tensor> sums;
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    WeightGradient<T> p{};
    p.size = tiling_of(geometry);
    p.grad_output.view = view_of<T>(grad_output), p.input.view = view_of<T>(input);
    const auto make_sums = [&](int64_t count) {
      const ScalarType type = sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float;
      sums = torch::stable::new_empty(input, {count, shape[0], shape[1], shape[2], shape[3]}, type);
      return static_cast<Compute<T>*>(sums->mutable_data_ptr());
    };
    const cudaError_t error = launch_weight_gradient(p, current_stream(input), make_sums);
    check_launch(error, "depthwise_conv2d_backward_weight", shapes_of(input, geometry));
  });
  return sum_over(*sums, {0}, input.scalar_type());
}

// A sum and no more: PyTorch's own adds up in float32, in a fixed order.
Tensor depthwise_conv2d_backward_bias(const Tensor& grad_output) {
  geometry_of("grad_output", grad_output, {1, 1});
  const torch::stable::accelerator::DeviceGuard guard(grad_output.get_device_index());
  return sum_over(grad_output, {0, 2, 3}, grad_output.scalar_type());
}
