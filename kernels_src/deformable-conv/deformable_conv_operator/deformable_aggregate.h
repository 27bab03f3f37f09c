// The operators. Every backend has them, with the shapes of the Python function.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/tensor.h>

// Kernel size, stride, padding and dilation are (height, width).
torch::stable::Tensor deformable_aggregate_forward(const torch::stable::Tensor& value,
                                                   const torch::stable::Tensor& offset,
                                                   const torch::stable::Tensor& weight,
                                                   std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                                                   std::vector<int64_t> padding, std::vector<int64_t> dilation,
                                                   double offset_scale, bool remove_center, bool softmax);

// Gradients of value, offset and weight; `deterministic` asks for the same bits in every run.
std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor> deformable_aggregate_backward(
    const torch::stable::Tensor& grad_output, const torch::stable::Tensor& value, const torch::stable::Tensor& offset,
    const torch::stable::Tensor& weight, std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
    std::vector<int64_t> padding, std::vector<int64_t> dilation, double offset_scale, bool remove_center, bool softmax,
    bool deterministic);
