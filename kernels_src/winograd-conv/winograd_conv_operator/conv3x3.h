// The operator: (N, H, W, C) and (O, C, 3, 3) -> (N, H, W, O).
#pragma once

#include <optional>

#include <torch/csrc/stable/tensor.h>

torch::stable::Tensor conv3x3(const torch::stable::Tensor& input, const torch::stable::Tensor& weight,
                              const std::optional<torch::stable::Tensor>& bias, bool relu);
