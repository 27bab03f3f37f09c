// The operators. Every backend has them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <torch/csrc/stable/tensor.h>

// Depthwise convolution with stride 1 and same padding: input (N, C, H, W) of any layout, weight (C, 1, KH, KW) with
// odd KH and KW, bias (C). The output has the layout of the input. With the flipped weight it is the gradient of the
// input.
torch::stable::Tensor depthwise_conv2d_forward(const torch::stable::Tensor& input, const torch::stable::Tensor& weight,
                                               const std::optional<torch::stable::Tensor>& bias);

// Gradient of the weight, (C, 1, KH, KW)
torch::stable::Tensor depthwise_conv2d_backward_weight(const torch::stable::Tensor& grad_output,
                                                       const torch::stable::Tensor& input,
                                                       std::vector<int64_t> kernel_size);

// Gradient of the bias, (C)
torch::stable::Tensor depthwise_conv2d_backward_bias(const torch::stable::Tensor& grad_output);
