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

// The four heads of SMT's modulation and their aggregation, which makes eight outputs of channel c of every head. A task
// is a window of pixels and a block of the channels of a head.
template <typename T>
struct Mixing {
  static constexpr int kHeads = 4, kOutputs = 8, kSizes[kHeads] = {3, 5, 7, 9};
  static constexpr int kFolded = 9 + 25 + 49 + 81 + kOutputs * (kHeads + 1);  // numbers of a channel, folded
  static constexpr int64_t kRows = 14, kColumns = 28, kBlock = 16;
  int64_t height, width, channels;       // channels of one head
  int64_t down, across, blocks;          // windows and blocks
  const T* input;                        // (batch, height, width, kHeads * channels)
  const T* kernels[kHeads];              // (channels, size * size)
  const T* kernel_biases[kHeads];        // (channels)
  const T *expand, *expand_bias;         // (channels * kOutputs, kHeads), (channels * kOutputs)
  const T *mean, *variance;              // of the BatchNorm, (channels * kOutputs)
  const T *weight, *bias;
  double eps;
};

// Self-attention over all pixels plus a depthwise 3x3 convolution of the values.
template <typename T>
struct Attention {
  int64_t height, width, heads, channels;  // channels of one head
  const T* query;                          // (batch, height * width, heads * channels)
  const T* key_value;                      // (batch, height * width, 2 * heads * channels)
  const T* kernel;                         // (heads * channels, 9)
  const T* bias;
};

// residual + scale * activation(input x weight + bias); what there is not is a null pointer.
template <typename T>
struct Product {
  int64_t depth, columns;
  const T* input;   // (rows, depth)
  const T* weight;  // (columns, depth)
  const T* bias;
  bool gelu;
  const T* scale;
  const T* residual;  // (rows, columns)
  T* output;          // (rows, columns)
};

// Each path computes rows [begin, end): of channels, of image rows (depthwise), numbers (gelu and its backward), windows
// (mix_scales) or heads (attend).
#define DECLARE_PATH(path)                                                                                      \
  namespace path {                                                                                              \
  template <typename T>                                                                                         \
  void layer_norm(const Norm<T>&, const T* input, T* output, int64_t begin, int64_t end);                       \
  template <typename T>                                                                                         \
  void add_layer_norm(const Norm<T>&, const Residual<T>&, T* output, int64_t begin, int64_t end);               \
  template <typename T>                                                                                         \
  void gelu(const T* input, T* output, int64_t begin, int64_t end);                                             \
  template <typename T>                                                                                         \
  void gelu_backward(const T* gradient, const T* input, T* output, int64_t begin, int64_t end);                 \
  template <typename T>                                                                                         \
  void depthwise_norm_gelu(const Depthwise<T>&, const Norm<T>&, T* output, int64_t begin, int64_t end);         \
  template <typename T>                                                                                         \
  void add_depthwise_gelu(const Depthwise<T>&, T* output, int64_t begin, int64_t end);                          \
  template <typename T>                                                                                         \
  void attend(const Attention<T>&, T* output, int64_t begin, int64_t end);                                      \
  template <typename T>                                                                                         \
  void fold(const Mixing<T>&, Compute<T>* folded);                                                              \
  template <typename T>                                                                                         \
  void mix_scales(const Mixing<T>&, const Compute<T>* folded, T* output, int64_t begin, int64_t end);           \
  template <typename T>                                                                                         \
  void multiply(const Product<T>&, int64_t begin, int64_t end, int64_t first_panel, int64_t last_panel);        \
  template <typename T>                                                                                         \
  int64_t panel_count(int64_t columns);                                                                         \
  }
DECLARE_PATH(portable)
DECLARE_PATH(avx2)
DECLARE_PATH(avx512)
DECLARE_PATH(avx512_bf16)
#undef DECLARE_PATH

}  // namespace fused_layers
