// The operators, with the shapes of the Python functions.
#pragma once

#include <optional>
#include <tuple>
#include <vector>

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

// residual + activation(scale * (relu(input * input_scale + input_shift) weight^T) + bias), where activation is 0 for
// none, 1 for ReLU, 2 for GELU. Scales, shift and bias may be float32 with any dtype of the input.
torch::stable::Tensor pointwise_conv(const torch::stable::Tensor& input, const torch::stable::Tensor& weight,
                                     const std::optional<torch::stable::Tensor>& bias,
                                     const std::optional<torch::stable::Tensor>& scale,
                                     const std::optional<torch::stable::Tensor>& residual,
                                     const std::optional<torch::stable::Tensor>& input_scale,
                                     const std::optional<torch::stable::Tensor>& input_shift, bool input_relu,
                                     int64_t activation);

// The factor and the summand of a BatchNorm in evaluation, in float32 at least.
std::tuple<torch::stable::Tensor, torch::stable::Tensor> batch_norm_factors(const torch::stable::Tensor& weight,
                                                                            const torch::stable::Tensor& bias,
                                                                            const torch::stable::Tensor& mean,
                                                                            const torch::stable::Tensor& variance,
                                                                            double eps);

// Depthwise kernels times scales, and small ones times theirs in the middle of them. Scales are in float32 at least.
torch::stable::Tensor merge_kernels(const torch::stable::Tensor& kernels, const torch::stable::Tensor& scale,
                                    const std::optional<torch::stable::Tensor>& small,
                                    const std::optional<torch::stable::Tensor>& small_scale);

// The sum of the input and its convolution, through GELU.
torch::stable::Tensor add_depthwise_gelu(const torch::stable::Tensor& input, const torch::stable::Tensor& kernel,
                                         const torch::stable::Tensor& kernel_bias);

torch::stable::Tensor mix_scales(const torch::stable::Tensor& input, const std::vector<torch::stable::Tensor>& kernels,
                                 const std::vector<torch::stable::Tensor>& kernel_biases,
                                 const torch::stable::Tensor& expand, const torch::stable::Tensor& expand_bias,
                                 const torch::stable::Tensor& mean, const torch::stable::Tensor& variance,
                                 const torch::stable::Tensor& weight, const torch::stable::Tensor& bias, double eps);

// Attention of every pixel to all of its image, with a depthwise convolution of the values.
torch::stable::Tensor attend(const torch::stable::Tensor& query, const torch::stable::Tensor& key_value, int64_t heads,
                             const torch::stable::Tensor& kernel, const torch::stable::Tensor& kernel_bias);
