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

torch::stable::Tensor gelu(const torch::stable::Tensor& input);

torch::stable::Tensor depthwise_norm_gelu(const torch::stable::Tensor& input, const torch::stable::Tensor& kernel,
                                          const torch::stable::Tensor& kernel_bias,
                                          const torch::stable::Tensor& weight, const torch::stable::Tensor& bias,
                                          double eps);
