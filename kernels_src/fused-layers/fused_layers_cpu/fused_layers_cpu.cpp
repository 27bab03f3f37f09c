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
  constexpr int64_t kSome = 16;  // so that what is read lies in the first-level cache, and writes are lines of it
  const T* const taps = data<T>(kernel);
  for (int64_t first = 0; first < channels; first += kSome)
    for (int tap = 0; tap < 9; ++tap)
      for (int64_t c = first; c < std::min(first + kSome, channels); ++c) by_tap[tap * channels + c] = taps[c * 9 + tap];
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

Tensor gelu_backward(const Tensor& gradient, const Tensor& input) {
  check_shape("gradient", gradient, sizes_of(input));
  check_like("gradient", gradient, "input", input);
  Tensor output = torch::stable::new_empty(input, sizes_of(input));
  if (output.numel() == 0) return output;
  const Tensor gradients = in_order(gradient), numbers = in_order(input);
  const CpuPath path = choose_path();
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    T* const out = data<T>(output);
    const auto run = ON_PATH(path, gelu_backward<T>);
    torch::stable::parallel_for(0, numbers.numel(), kTask, [&](int64_t begin, int64_t end) {
      run(data<T>(gradients), data<T>(numbers), out, begin, end);
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

namespace {

constexpr int64_t kRowsOfTask = 128;  // to pack a panel then costs little beside the products

template <typename T>
void multiply_all(CpuPath path, const Product<T>& product, int64_t rows) {
  const auto multiply = ON_PATH(path, multiply<T>);
  const int64_t panels = ON_PATH(path, panel_count<T>)(product.columns), threads = torch::stable::get_num_threads();
  if (rows < kRowsOfTask * threads && panels >= threads) {
    torch::stable::parallel_for(0, panels, 1,
                                [&](int64_t begin, int64_t end) { multiply(product, 0, rows, begin, end); });
  } else {
    torch::stable::parallel_for(0, rows, kRowsOfTask,
                                [&](int64_t begin, int64_t end) { multiply(product, begin, end, 0, panels); });
  }
}

void check_product(const char* name, const Tensor& weight, const std::optional<Tensor>& bias, int64_t depth,
                   const Tensor& input) {
  STD_TORCH_CHECK(weight.dim() == 2 && weight.size(1) == depth, name, ": expected (C_out, ", depth, "), got ",
                  shape_of(sizes_of(weight)));
  check_like(name, weight, "input", input);
  if (!bias) return;
  check_shape("bias", *bias, {weight.size(0)});
  check_like("bias", *bias, "input", input);
}

std::optional<Tensor> in_order(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional(fused_layers::in_order(*tensor)) : tensor;
}
template <typename T>
const T* data(const std::optional<Tensor>& tensor) {
  return tensor ? fused_layers::data<T>(*tensor) : nullptr;
}

void check_sum(const Tensor& output, const std::optional<Tensor>& residual, const std::optional<Tensor>& scale) {
  if (residual) {
    check_shape("residual", *residual, sizes_of(output));
    check_like("residual", *residual, "input", output);
  }
  if (scale) check_parameter("scale", *scale, output);
}

}  // namespace

Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
              const std::optional<Tensor>& residual, const std::optional<Tensor>& scale) {
  const int64_t depth = channels_of(input);
  check_product("weight", weight, bias, depth, input);
  std::vector<int64_t> sizes = sizes_of(input);
  sizes.back() = weight.size(0);
  Tensor output = torch::stable::new_empty(input, sizes);
  check_sum(output, residual, scale);
  if (output.numel() == 0) return output;
  const Tensor rows = in_order(input), factors = in_order(weight);
  const std::optional<Tensor> shift = in_order(bias), added = in_order(residual), factor = in_order(scale);
  const CpuPath path = choose_path();
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    const Product<T> product{depth, weight.size(0),  data<T>(rows),  data<T>(factors), data<T>(shift),
                             false, data<T>(factor), data<T>(added), data<T>(output)};
    multiply_all(path, product, output.numel() / product.columns);
  });
  return output;
}

Tensor feed_forward(const Tensor& input, const Tensor& weight1, const std::optional<Tensor>& bias1,
                    const Tensor& weight2, const std::optional<Tensor>& bias2, const std::optional<Tensor>& residual,
                    const std::optional<Tensor>& scale) {
  const int64_t depth = channels_of(input);
  check_product("weight1", weight1, bias1, depth, input);
  const int64_t hidden = weight1.size(0);
  check_product("weight2", weight2, bias2, hidden, input);
  std::vector<int64_t> sizes = sizes_of(input);
  sizes.back() = weight2.size(0);
  Tensor output = torch::stable::new_empty(input, sizes);
  check_sum(output, residual, scale);
  if (output.numel() == 0) return output;
  const Tensor rows = in_order(input), factors1 = in_order(weight1), factors2 = in_order(weight2);
  const std::optional<Tensor> shift1 = in_order(bias1), shift2 = in_order(bias2);
  const std::optional<Tensor> added = in_order(residual), factor = in_order(scale);
  const CpuPath path = choose_path();
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    constexpr int64_t kHiddenBytes = 2 << 20;
    const int64_t columns = weight2.size(0), count = output.numel() / columns;
    const int64_t block = std::clamp<int64_t>(kHiddenBytes / int64_t(sizeof(T)) / std::max<int64_t>(1, hidden), 256, std::max<int64_t>(256, count));
    Tensor between = torch::stable::new_empty(input, {std::min(block, count), hidden});
    for (int64_t begin = 0; begin < count; begin += block) {
      const int64_t number = std::min(block, count - begin);
      const Product<T> expansion{depth, hidden, data<T>(rows) + begin * depth, data<T>(factors1), data<T>(shift1),
                                 true,  nullptr, nullptr, data<T>(between)};
      multiply_all(path, expansion, number);
      const T* const sum = data<T>(added);
      const Product<T> projection{hidden, columns, data<T>(between), data<T>(factors2), data<T>(shift2), false,
                                  data<T>(factor), sum ? sum + begin * columns : nullptr,
                                  data<T>(output) + begin * columns};
      multiply_all(path, projection, number);
    }
  });
  return output;
}

std::string cpu_path() { return name_of(choose_path()); }
