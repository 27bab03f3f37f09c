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

// Each path computes rows [begin, end): of channels, of image rows (depthwise_norm_gelu), or numbers (gelu and its
// backward).
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
