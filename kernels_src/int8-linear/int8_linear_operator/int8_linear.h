// The operators, with the shapes of the Python functions.
#pragma once

#include <optional>

#include <torch/csrc/stable/tensor.h>

torch::stable::Tensor pack(const torch::stable::Tensor& weight);

torch::stable::Tensor linear(const torch::stable::Tensor& input, double scale, int64_t zero_point,
                             const torch::stable::Tensor& weight, const torch::stable::Tensor& weight_scale,
                             const std::optional<torch::stable::Tensor>& bias);

torch::stable::Tensor feed_forward(const torch::stable::Tensor& input, double scale, int64_t zero_point,
                                   const torch::stable::Tensor& weight1, const torch::stable::Tensor& weight_scale1,
                                   const std::optional<torch::stable::Tensor>& bias1, double hidden_scale,
                                   int64_t hidden_zero_point, const torch::stable::Tensor& weight2,
                                   const torch::stable::Tensor& weight_scale2,
                                   const std::optional<torch::stable::Tensor>& bias2);
