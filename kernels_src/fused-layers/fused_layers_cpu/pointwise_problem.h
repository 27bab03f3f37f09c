// What the tensor-facing code of pointwise convolutions hands to the compute paths (see problem.h).
#pragma once

#include "problem.h"

namespace fused_layers {

enum class Activation : int64_t { none, relu, gelu };

// residual + activation(scale * (relu(input * input_scale + input_shift) weight^T) + bias); what is null is left out.
template <typename T>
struct Pointwise {
  int64_t rows, inputs, outputs;
  const T* input;                       // (rows, inputs)
  const T* weight;                      // (outputs, inputs)
  const Compute<T>*input_scale, *input_shift;  // (inputs), both or none
  bool input_relu;
  const Compute<T>*scale, *bias;  // (outputs)
  Activation activation;
  const T* residual;  // (rows, outputs)
  T* output;
  // A task is a block of outputs for a chunk of rows; the tasks of a chunk are neighbours.
  int64_t chunk, blocks;
};
constexpr int64_t kOutputBlock = 16;  // outputs

// A BatchNorm in evaluation as a factor and a summand for each channel.
template <typename T>
struct BatchNorm {
  const T *weight, *bias, *mean, *variance;  // (channels)
  Compute<T> eps;
  Compute<T>*scale, *shift;
};

// Depthwise kernels times their scales; to the middle of each the small one is added, times its own.
template <typename T>
struct Kernels {
  int64_t height, width, small_height, small_width;
  const T *kernels, *small;  // (channels, 1, height, width), (channels, 1, small_height, small_width)
  const Compute<T>*scale, *small_scale;
  T* output;
};

// Each path computes tasks [begin, end) of a product, and channels [begin, end) of the others.
#define DECLARE_PATH(path)                                                    \
  namespace path {                                                            \
  template <typename T>                                                       \
  void pointwise_conv(const Pointwise<T>&, int64_t begin, int64_t end);       \
  template <typename T>                                                       \
  void batch_norm_factors(const BatchNorm<T>&, int64_t begin, int64_t end);   \
  template <typename T>                                                       \
  void merge_kernels(const Kernels<T>&, int64_t begin, int64_t end);          \
  }
DECLARE_PATH(portable)
DECLARE_PATH(avx2)
DECLARE_PATH(avx512)
DECLARE_PATH(avx512_bf16)
#undef DECLARE_PATH

}  // namespace fused_layers
