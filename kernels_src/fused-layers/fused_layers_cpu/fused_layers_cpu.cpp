// From tensors to the compute paths: checks, memory, the split into tasks.
#include <vector>

#include "fused_layers_operator/fused_layers.h"
#include "tensors.h"

namespace fused_layers {
namespace {

void check_norm(const Tensor& input, const Tensor& weight, const Tensor& bias) {
  check_parameter("weight", weight, input);
  check_parameter("bias", bias, input);
}

template <typename T>
Norm<T> norm_of(const Tensor& weight, const Tensor& bias, double eps) {
  return {weight.size(0), data<T>(weight), data<T>(bias), Compute<T>(eps)};
}

void check_depthwise(const Tensor& input, const Tensor& kernel, const Tensor& kernel_bias) {
  STD_TORCH_CHECK(input.dim() == 4, "input: expected (N, H, W, C), got ", shape_of(sizes_of(input)));
  check_shape("kernel", kernel, {input.size(3), 1, 3, 3});
  check_like("kernel", kernel, "input", input);
  check_parameter("kernel_bias", kernel_bias, input);
}

template <typename T>
std::vector<T> tap_by_tap(const Tensor& kernel) {  // (C, 1, 3, 3) -> (9, C)
  const int64_t channels = kernel.size(0);
  std::vector<T> by_tap(9 * channels);
  for (int tap = 0; tap < 9; ++tap)
    for (int64_t c = 0; c < channels; ++c) by_tap[tap * channels + c] = data<T>(kernel)[c * 9 + tap];
  return by_tap;
}

template <typename T>
Depthwise<T> depthwise_of(const Tensor& input, const std::vector<T>& kernel, const Tensor& bias,
                          const std::vector<T>& zeros) {
  return {input.size(1), input.size(2), input.size(3), data<T>(input), kernel.data(), data<T>(bias), zeros.data()};
}

}  // namespace
}  // namespace fused_layers

using namespace fused_layers;

Tensor layer_norm(const Tensor& input, const Tensor& weight, const Tensor& bias, double eps) {
  check_norm(input, weight, bias);
  Tensor output = torch::stable::new_empty(input, sizes_of(input));
  if (output.numel() == 0) return output;
  const Tensor rows = in_order(input), factor = in_order(weight), shift = in_order(bias);
  const CpuPath path = choose_path();
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    const Norm<T> norm = norm_of<T>(factor, shift, eps);
    T* const out = data<T>(output);
    const auto run = ON_PATH(path, layer_norm<T>);
    torch::stable::parallel_for(0, rows.numel() / norm.channels, grain(norm.channels), [&](int64_t begin, int64_t end) {
      run(norm, data<T>(rows), out, begin, end);
    });
  });
  return output;
}

std::tuple<Tensor, Tensor> add_layer_norm(const Tensor& input, const Tensor& branch, const std::optional<Tensor>& scale,
                                          const Tensor& weight, const Tensor& bias, double eps) {
  check_norm(input, weight, bias);
  check_shape("branch", branch, sizes_of(input));
  check_like("branch", branch, "input", input);
  if (scale) check_parameter("scale", *scale, input);
  Tensor sum = torch::stable::new_empty(input, sizes_of(input));
  Tensor output = torch::stable::new_empty(input, sizes_of(input));
  if (output.numel() == 0) return {sum, output};
  const Tensor rows = in_order(input), branches = in_order(branch);
  const Tensor factor = in_order(weight), shift = in_order(bias);
  const Tensor scales = scale ? in_order(*scale) : factor;
  const CpuPath path = choose_path();
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    const Norm<T> norm = norm_of<T>(factor, shift, eps);
    const Residual<T> residual{data<T>(rows), data<T>(branches), scale ? data<T>(scales) : nullptr, data<T>(sum)};
    T* const out = data<T>(output);
    const auto run = ON_PATH(path, add_layer_norm<T>);
    torch::stable::parallel_for(0, rows.numel() / norm.channels, grain(norm.channels),
                                [&](int64_t begin, int64_t end) { run(norm, residual, out, begin, end); });
  });
  return {sum, output};
}

Tensor gelu(const Tensor& input) {
  Tensor output = torch::stable::new_empty(input, sizes_of(input));
  if (output.numel() == 0) return output;
  const Tensor numbers = in_order(input);
  const CpuPath path = choose_path();
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    T* const out = data<T>(output);
    const auto run = ON_PATH(path, gelu<T>);
    torch::stable::parallel_for(0, numbers.numel(), kTask, [&](int64_t begin, int64_t end) {
      run(data<T>(numbers), out, begin, end);
    });
  });
  return output;
}

Tensor depthwise_norm_gelu(const Tensor& input, const Tensor& kernel, const Tensor& kernel_bias, const Tensor& weight,
                           const Tensor& bias, double eps) {
  check_depthwise(input, kernel, kernel_bias);
  check_norm(input, weight, bias);
  Tensor output = torch::stable::new_empty(input, sizes_of(input));
  if (output.numel() == 0) return output;
  const Tensor pixels = in_order(input), taps = in_order(kernel), taps_bias = in_order(kernel_bias);
  const Tensor factor = in_order(weight), shift = in_order(bias);
  const CpuPath path = choose_path();
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<T> zeros(input.size(3), T{});
    const std::vector<T> by_tap = tap_by_tap<T>(taps);
    const Depthwise<T> conv = depthwise_of(pixels, by_tap, taps_bias, zeros);
    const Norm<T> norm = norm_of<T>(factor, shift, eps);
    T* const out = data<T>(output);
    const auto run = ON_PATH(path, depthwise_norm_gelu<T>);
    torch::stable::parallel_for(0, input.size(0) * conv.height, grain(8 * conv.width * conv.channels),
                                [&](int64_t begin, int64_t end) { run(conv, norm, out, begin, end); });
  });
  return output;
}

Tensor add_depthwise_gelu(const Tensor& input, const Tensor& kernel, const Tensor& kernel_bias) {
  check_depthwise(input, kernel, kernel_bias);
  Tensor output = torch::stable::new_empty(input, sizes_of(input));
  if (output.numel() == 0) return output;
  const Tensor pixels = in_order(input), taps = in_order(kernel), taps_bias = in_order(kernel_bias);
  const CpuPath path = choose_path();
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<T> zeros(input.size(3), T{});
    const std::vector<T> by_tap = tap_by_tap<T>(taps);
    const Depthwise<T> conv = depthwise_of(pixels, by_tap, taps_bias, zeros);
    T* const out = data<T>(output);
    const auto run = ON_PATH(path, add_depthwise_gelu<T>);
    torch::stable::parallel_for(0, input.size(0) * conv.height, grain(2 * conv.width * conv.channels),
                                [&](int64_t begin, int64_t end) { run(conv, out, begin, end); });
  });
  return output;
}

std::string cpu_path() { return name_of(choose_path()); }
