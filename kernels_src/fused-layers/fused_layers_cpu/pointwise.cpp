// Pointwise convolutions and what is merged into convolutions: from tensors to the compute paths.
#include <algorithm>
#include <vector>

#include "fused_layers_operator/fused_layers.h"
#include "pointwise_problem.h"
#include "tensors.h"

namespace fused_layers {
namespace {

constexpr int64_t kPanelBytes = 512 << 10;  // of the input, that should stay in the second-level cache
constexpr int64_t kChunkRows = 48;          // whole tiles, on every path
constexpr int64_t kProducts = 1 << 19;      // they take some 10 microseconds

ScalarType compute_type(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Depthwise kernels with odd sides, no larger than those of `like`.
void check_kernels(const char* name, const Tensor& kernels, const Tensor& like) {
  STD_TORCH_CHECK(kernels.dim() == 4 && kernels.size(0) == like.size(0) && kernels.size(1) == 1 &&
                      kernels.size(2) % 2 == 1 && kernels.size(3) % 2 == 1 && kernels.size(2) <= like.size(2) &&
                      kernels.size(3) <= like.size(3),
                  name, ": expected (C, 1, odd, odd), got ", shape_of(sizes_of(kernels)));
  check_like(name, kernels, "kernels", like);
}

void check_vector(const char* name, const std::optional<Tensor>& vector, int64_t size, const Tensor& input) {
  if (!vector) return;
  check_shape(name, *vector, {size});
  if (vector->scalar_type() != ScalarType::Float) check_like(name, *vector, "input", input);
}

}  // namespace
}  // namespace fused_layers

using namespace fused_layers;

Tensor pointwise_conv(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                      const std::optional<Tensor>& scale, const std::optional<Tensor>& residual,
                      const std::optional<Tensor>& input_scale, const std::optional<Tensor>& input_shift,
                      bool input_relu, int64_t activation) {
  const int64_t inputs = channels_of(input);
  STD_TORCH_CHECK(weight.dim() == 2, "weight: expected (outputs, ", inputs, "), got ", shape_of(sizes_of(weight)));
  const int64_t outputs = weight.size(0);
  check_shape("weight", weight, {outputs, inputs});
  check_like("weight", weight, "input", input);
  check_vector("bias", bias, outputs, input);
  check_vector("scale", scale, outputs, input);
  check_vector("input_scale", input_scale, inputs, input);
  check_vector("input_shift", input_shift, inputs, input);
  STD_TORCH_CHECK(input_scale.has_value() == input_shift.has_value(), "input_scale and input_shift go together");
  STD_TORCH_CHECK(activation >= 0 && activation <= 2, "activation: expected 0, 1 or 2, got ", activation);
  std::vector<int64_t> shape = sizes_of(input);
  shape.back() = outputs;
  if (residual) {
    check_shape("residual", *residual, shape);
    check_like("residual", *residual, "input", input);
  }
  Tensor output = torch::stable::new_empty(input, shape);
  if (output.numel() == 0) return output;
  const Tensor rows = in_order(input), weights = in_order(weight), added = residual ? in_order(*residual) : rows;
  const CpuPath path = choose_path();
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    using A = Compute<T>;
    std::vector<Tensor> vectors;
    const auto numbers = [&](const std::optional<Tensor>& tensor) -> const A* {
      if (!tensor) return nullptr;
      const ScalarType type = compute_type(input);
      vectors.push_back(in_order(tensor->scalar_type() == type ? *tensor : torch::stable::to(*tensor, type)));
      return data<A>(vectors.back());
    };
    Pointwise<T> problem{output.numel() / outputs, inputs, outputs, data<T>(rows), data<T>(weights),
                      numbers(input_scale), numbers(input_shift), input_relu, numbers(scale), numbers(bias),
                      Activation(activation), residual ? data<T>(added) : nullptr, data<T>(output),
                      0, (outputs + kOutputBlock - 1) / kOutputBlock};
    const int64_t row_bytes = std::max<int64_t>(1, inputs * int64_t(sizeof(A)));
    const int64_t chunks = std::max<int64_t>(1, problem.rows * row_bytes / kPanelBytes);
    problem.chunk = ((problem.rows + chunks - 1) / chunks + kChunkRows - 1) / kChunkRows * kChunkRows;
    const int64_t tasks = (problem.rows + problem.chunk - 1) / problem.chunk * problem.blocks;
    const int64_t products = std::min(problem.rows, problem.chunk) * (inputs + 1) * kOutputBlock;
    const auto run = ON_PATH(path, pointwise_conv<T>);
    torch::stable::parallel_for(0, tasks, std::max<int64_t>(1, kProducts / products),
                                [&](int64_t begin, int64_t end) { run(problem, begin, end); });
  });
  return output;
}

std::tuple<Tensor, Tensor> batch_norm_factors(const Tensor& weight, const Tensor& bias, const Tensor& mean,
                                              const Tensor& variance, double eps) {
  const int64_t channels = channels_of(weight);
  check_parameter("bias", bias, weight);
  check_parameter("mean", mean, weight);
  check_parameter("variance", variance, weight);
  const ScalarType type = compute_type(weight);
  Tensor scale = torch::stable::new_empty(weight, {channels}, type);
  Tensor shift = torch::stable::new_empty(weight, {channels}, type);
  const Tensor given[] = {in_order(weight), in_order(bias), in_order(mean), in_order(variance)};
  const CpuPath path = choose_path();
  dispatch_type("weight", weight, [&](auto zero) {
    using T = decltype(zero);
    using A = Compute<T>;
    ON_PATH(path, batch_norm_factors<T>)
    ({data<T>(given[0]), data<T>(given[1]), data<T>(given[2]), data<T>(given[3]), A(eps), data<A>(scale),
      data<A>(shift)},
     0, channels);
  });
  return {scale, shift};
}

Tensor merge_kernels(const Tensor& kernels, const Tensor& scale, const std::optional<Tensor>& small,
                     const std::optional<Tensor>& small_scale) {
  check_kernels("kernels", kernels, kernels);
  if (small) check_kernels("small", *small, kernels);
  STD_TORCH_CHECK(small.has_value() == small_scale.has_value(), "small and small_scale go together");
  for (const Tensor* const factors : {&scale, small_scale ? &*small_scale : &scale}) {
    check_shape("scale", *factors, {kernels.size(0)});
    STD_TORCH_CHECK(factors->scalar_type() == compute_type(kernels), "scale: expected float32, or float64 for float64");
  }
  Tensor output = torch::stable::new_empty(kernels, sizes_of(kernels));
  if (output.numel() == 0) return output;
  const Tensor taps = in_order(kernels), factors = in_order(scale);
  const Tensor small_taps = small ? in_order(*small) : taps, small_factors = small ? in_order(*small_scale) : factors;
  const CpuPath path = choose_path();
  dispatch_type("kernels", kernels, [&](auto zero) {
    using T = decltype(zero);
    using A = Compute<T>;
    const Kernels<T> problem{kernels.size(2),        kernels.size(3),       small ? small->size(2) : 0,
                             small ? small->size(3) : 0, data<T>(taps),     data<T>(small_taps),
                             data<A>(factors),       data<A>(small_factors), data<T>(output)};
    const auto run = ON_PATH(path, merge_kernels<T>);
    torch::stable::parallel_for(0, kernels.size(0), grain(problem.height * problem.width),
                                [&](int64_t begin, int64_t end) { run(problem, begin, end); });
  });
  return output;
}
