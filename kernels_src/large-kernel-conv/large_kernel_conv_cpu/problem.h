// What the tensor-facing code hands to the compute paths: plain numbers and pointers, without code of their own (see
// common/types.h).
#pragma once

#include "large_kernel_conv_operator/types.h"

namespace large_kernel_conv {

// Tasks are the flattened (channel block, image, chunk of output rows) for a convolution, and (channel block, chunk of
// kernel rows) for the gradient of its weight. They share no output element, and no result depends on the chunks.
template <typename T>
struct Convolution {
  Geometry size;
  View<const T> input, weight;
  const T* bias;  // null for none
  View<T> output;
  int64_t chunks;
};

template <typename T>
struct WeightGradient {
  Geometry size;
  View<const T> grad_output, input;
  View<T> grad_weight;
  int64_t chunks;
};

template <typename T>
struct BiasGradient {
  Geometry size;
  View<const T> grad_output;
  T* grad_bias;
};

// Each path says how many channels it has in a block, and computes the tasks [begin, end); those of the gradient of
// the bias are the channel blocks.
#define DECLARE_PATH(path)                                                         \
  namespace path {                                                                 \
  template <typename T>                                                            \
  int64_t channel_block();                                                         \
  template <typename T>                                                            \
  void convolve(const Convolution<T>&, int64_t begin, int64_t end);                \
  template <typename T>                                                            \
  void differentiate_weight(const WeightGradient<T>&, int64_t begin, int64_t end); \
  template <typename T>                                                            \
  void differentiate_bias(const BiasGradient<T>&, int64_t begin, int64_t end);     \
  }
DECLARE_PATH(portable)
DECLARE_PATH(avx2)
DECLARE_PATH(avx512)
DECLARE_PATH(avx512_bf16)  // convolution and gradient of the weight in bfloat16, in tasks of avx512
#undef DECLARE_PATH

template <typename T>
using Convolve = void (*)(const Convolution<T>&, int64_t begin, int64_t end);

namespace amx {
constexpr int64_t kChannelBlock = 8;
// Tasks are the flattened (channel block, chunk of images). `otherwise` convolves what has numbers that are not finite.
void convolve(const Convolution<BFloat16>&, int64_t begin, int64_t end, Convolve<BFloat16> otherwise);
}  // namespace amx

}  // namespace large_kernel_conv
