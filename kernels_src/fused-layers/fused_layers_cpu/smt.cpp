// The layers of SMT: from tensors to the compute paths.
#include <vector>

#include "fused_layers_operator/fused_layers.h"
#include "tensors.h"

using namespace fused_layers;

Tensor mix_scales(const Tensor& input, const std::vector<Tensor>& kernels, const std::vector<Tensor>& kernel_biases,
                  const Tensor& expand, const Tensor& expand_bias, const Tensor& mean, const Tensor& variance,
                  const Tensor& weight, const Tensor& bias, double eps) {
  using Shape = Mixing<float>;
  STD_TORCH_CHECK(input.dim() == 4 && input.size(3) % Shape::kHeads == 0,
                  "input: expected (N, H, W, C), with C a multiple of 4, got ", shape_of(sizes_of(input)));
  STD_TORCH_CHECK(kernels.size() == Shape::kHeads, "kernels: expected 4, got ", kernels.size());
  STD_TORCH_CHECK(kernel_biases.size() == Shape::kHeads, "kernel_biases: expected 4, got ", kernel_biases.size());
  const int64_t channels = input.size(3) / Shape::kHeads, expanded = channels * Shape::kOutputs;
  std::vector<Tensor> parameters;  // kept in order while their numbers are read
  const auto check = [&](const char* name, const Tensor& tensor, const std::vector<int64_t>& shape) {
    check_shape(name, tensor, shape);
    check_like(name, tensor, "input", input);
    parameters.push_back(in_order(tensor));
  };
  for (int h = 0; h < Shape::kHeads; ++h) {
    check("kernels", kernels[h], {channels, 1, Shape::kSizes[h], Shape::kSizes[h]});
    check("kernel_biases", kernel_biases[h], {channels});
  }
  check("expand", expand, {expanded, Shape::kHeads, 1, 1});
  check("expand_bias", expand_bias, {expanded});
  check("mean", mean, {expanded});
  check("variance", variance, {expanded});
  check("weight", weight, {expanded});
  check("bias", bias, {expanded});
  Tensor output = torch::stable::new_empty(input, {input.size(0), input.size(1), input.size(2), expanded});
  if (output.numel() == 0) return output;
  const Tensor pixels = in_order(input);
  const CpuPath path = choose_path();
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    using M = Mixing<T>;
    const auto number_of = [](int64_t size, int64_t part) { return (size + part - 1) / part; };
    M mixing{input.size(1),
             input.size(2),
             channels,
             number_of(input.size(1), M::kRows),
             number_of(input.size(2), M::kColumns),
             number_of(channels, M::kBlock),
             data<T>(pixels)};
    auto parameter = parameters.begin();
    for (int h = 0; h < M::kHeads; ++h)
      mixing.kernels[h] = data<T>(*parameter++), mixing.kernel_biases[h] = data<T>(*parameter++);
    for (const T** pointer : {&mixing.expand, &mixing.expand_bias, &mixing.mean, &mixing.variance, &mixing.weight, &mixing.bias})
      *pointer = data<T>(*parameter++);
    mixing.eps = eps;
    std::vector<Compute<T>> folded(M::kFolded * mixing.blocks * M::kBlock);
    ON_PATH(path, fold<T>)(mixing, folded.data());
    T* const out = data<T>(output);
    const auto run = ON_PATH(path, mix_scales<T>);
    // a task takes longer than waking a thread, but for those of the smallest images
    torch::stable::parallel_for(0, input.size(0) * mixing.down * mixing.across * mixing.blocks, 1,
                                [&](int64_t begin, int64_t end) { run(mixing, folded.data(), out, begin, end); });
  });
  return output;
}

Tensor attend(const Tensor& query, const Tensor& key_value, int64_t heads, const Tensor& kernel,
              const Tensor& kernel_bias) {
  STD_TORCH_CHECK(query.dim() == 4, "query: expected (N, H, W, C), got ", shape_of(sizes_of(query)));
  const int64_t channels = query.size(3);
  STD_TORCH_CHECK(heads > 0 && channels % heads == 0, "heads: expected a divisor of ", channels, ", got ", heads);
  check_shape("key_value", key_value, {query.size(0), query.size(1), query.size(2), 2 * channels});
  check_like("key_value", key_value, "query", query);
  check_shape("kernel", kernel, {channels, 1, 3, 3});
  check_like("kernel", kernel, "query", query);
  check_shape("kernel_bias", kernel_bias, {channels});
  check_like("kernel_bias", kernel_bias, "query", query);
  Tensor output = torch::stable::new_empty(query, sizes_of(query));
  if (output.numel() == 0) return output;
  const Tensor queries = in_order(query), keys = in_order(key_value), taps = in_order(kernel), bias = in_order(kernel_bias);
  const CpuPath path = choose_path();
  dispatch_type("query", query, [&](auto zero) {
    using T = decltype(zero);
    const Attention<T> attention{query.size(1),  query.size(2), heads,         channels / heads,
                                 data<T>(queries), data<T>(keys), data<T>(taps), data<T>(bias)};
    T* const out = data<T>(output);
    const auto run = ON_PATH(path, attend<T>);
    torch::stable::parallel_for(0, query.size(0) * heads, 1,
                                [&](int64_t begin, int64_t end) { run(attention, out, begin, end); });
  });
  return output;
}
