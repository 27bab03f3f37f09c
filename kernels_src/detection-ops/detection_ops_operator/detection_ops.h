// The operators. Every backend has them, with the shapes of the Python functions.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/tensor.h>

// `spatial_shapes` is height and width of each level, one after the other.
torch::stable::Tensor deformable_attention_forward(const torch::stable::Tensor& value,
                                                   const torch::stable::Tensor& sampling_locations,
                                                   const torch::stable::Tensor& attention_weights,
                                                   std::vector<int64_t> spatial_shapes);

// Gradients of value, sampling_locations and attention_weights.
std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor> deformable_attention_backward(
    const torch::stable::Tensor& grad_output, const torch::stable::Tensor& value,
    const torch::stable::Tensor& sampling_locations, const torch::stable::Tensor& attention_weights,
    std::vector<int64_t> spatial_shapes);

torch::stable::Tensor roi_align_forward(const torch::stable::Tensor& features, const torch::stable::Tensor& rois,
                                        int64_t output_size, double spatial_scale);

// The gradient of features, whose size is `size`.
torch::stable::Tensor roi_align_backward(const torch::stable::Tensor& grad_output, const torch::stable::Tensor& rois,
                                         std::vector<int64_t> size, double spatial_scale);

// Of boxes that are sorted, the best first, whether each is left when those of its group that overlap a better one,
// which is left itself, are taken away.
torch::stable::Tensor suppress(const torch::stable::Tensor& boxes, const torch::stable::Tensor& groups,
                               double iou_threshold);
