#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/tensor.h>

// Kernel size, stride, padding and dilation are (height, width). Shapes are those of the Python function.
torch::stable::Tensor deformable_aggregate_forward(const torch::stable::Tensor& value,
                                                   const torch::stable::Tensor& offset,
                                                   const torch::stable::Tensor& weight,
                                                   std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                                                   std::vector<int64_t> padding, std::vector<int64_t> dilation,
                                                   double offset_scale, bool remove_center, bool softmax);

// Gradients of value, offset and weight
std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor> deformable_aggregate_backward(
    const torch::stable::Tensor& grad_output, const torch::stable::Tensor& value, const torch::stable::Tensor& offset,
    const torch::stable::Tensor& weight, std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
    std::vector<int64_t> padding, std::vector<int64_t> dilation, double offset_scale, bool remove_center, bool softmax);

// The compute path that runs now: avx512, avx2 or portable
std::string cpu_path();
