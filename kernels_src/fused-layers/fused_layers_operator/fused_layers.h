// The operators, with the shapes of the Python functions.
#pragma once

#include <optional>
#include <tuple>

#include <torch/csrc/stable/tensor.h>

torch::stable::Tensor layer_norm(const torch::stable::Tensor& input, const torch::stable::Tensor& weight,
                                 const torch::stable::Tensor& bias, double eps);

// The sum of input and scaled branch, and its norm.
std::tuple<torch::stable::Tensor, torch::stable::Tensor> add_layer_norm(
    const torch::stable::Tensor& input, const torch::stable::Tensor& branch,
    const std::optional<torch::stable::Tensor>& scale, const torch::stable::Tensor& weight,
    const torch::stable::Tensor& bias, double eps);

// residual + (input weight^T + bias) * scale
torch::stable::Tensor linear(const torch::stable::Tensor& input, const torch::stable::Tensor& weight,
                             const std::optional<torch::stable::Tensor>& bias,
                             const std::optional<torch::stable::Tensor>& residual,
                             const std::optional<torch::stable::Tensor>& scale);

// Two of them, GELU between them; the first without a sum.
torch::stable::Tensor feed_forward(const torch::stable::Tensor& input, const torch::stable::Tensor& weight1,
                                   const std::optional<torch::stable::Tensor>& bias1,
                                   const torch::stable::Tensor& weight2,
                                   const std::optional<torch::stable::Tensor>& bias2,
                                   const std::optional<torch::stable::Tensor>& residual,
                                   const std::optional<torch::stable::Tensor>& scale);

torch::stable::Tensor gelu(const torch::stable::Tensor& input);

// The gradient of gelu's input, from that of its output.
torch::stable::Tensor gelu_backward(const torch::stable::Tensor& gradient, const torch::stable::Tensor& input);

torch::stable::Tensor depthwise_norm_gelu(const torch::stable::Tensor& input, const torch::stable::Tensor& kernel,
                                          const torch::stable::Tensor& kernel_bias,
                                          const torch::stable::Tensor& weight, const torch::stable::Tensor& bias,
                                          double eps);
