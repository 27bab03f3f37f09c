// What the tensor-facing code hands to the compute paths: plain numbers and pointers, without code of their own (see
// common/types.h).
#pragma once

#include "common/types.h"

namespace fused_layers {

using namespace common;

// LayerNorm over rows of `channels` contiguous numbers.
template <typename T>
struct Norm {
  int64_t channels;
  const T* weight;
  const T* bias;
  Compute<T> eps;
};

// input + branch * scale; no scale is a null pointer.
template <typename T>
struct Residual {
  const T* input;
  const T* branch;
  const T* scale;
  T* sum;
};

// A depthwise 3x3 convolution that keeps the size, of (batch, height, width, channels).
template <typename T>
struct Depthwise {
  int64_t height, width, channels;
  const T* input;
  const T* kernel;  // (9, channels), row by row
  const T* bias;
  const T* zeros;  // channels of them: a pixel outside the image
};

enum class Activation : int64_t { none, relu, gelu };

// residual + activation(scale * (relu(input * input_scale + input_shift) weight^T) + bias); what is null is left out.
template <typename T>
struct Linear {
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
constexpr int64_t kLinearBlock = 16;  // outputs

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

// Each path computes rows [begin, end): of channels, of image rows (depthwise_norm_gelu), or numbers (gelu),
// channels (batch_norm_factors, merge_kernels), or tasks (linear).
#define DECLARE_PATH(path)                                                                                      \
  namespace path {                                                                                              \
  template <typename T>                                                                                         \
  void layer_norm(const Norm<T>&, const T* input, T* output, int64_t begin, int64_t end);                       \
  template <typename T>                                                                                         \
  void add_layer_norm(const Norm<T>&, const Residual<T>&, T* output, int64_t begin, int64_t end);               \
  template <typename T>                                                                                         \
  void gelu(const T* input, T* output, int64_t begin, int64_t end);                                             \
  template <typename T>                                                                                         \
  void depthwise_norm_gelu(const Depthwise<T>&, const Norm<T>&, T* output, int64_t begin, int64_t end);         \
  template <typename T>                                                                                         \
  void linear(const Linear<T>&, int64_t begin, int64_t end);                                                    \
  template <typename T>                                                                                         \
  void batch_norm_factors(const BatchNorm<T>&, int64_t begin, int64_t end);                                     \
  template <typename T>                                                                                         \
  void merge_kernels(const Kernels<T>&, int64_t begin, int64_t end);                                            \
  }
DECLARE_PATH(portable)
DECLARE_PATH(avx2)
DECLARE_PATH(avx512)
DECLARE_PATH(avx512_bf16)
#undef DECLARE_PATH

}  // namespace fused_layers
