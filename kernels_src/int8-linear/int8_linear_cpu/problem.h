// What the tensor-facing code hands to the compute paths: plain numbers and pointers, without code of their own (see
// common/types.h).
#pragma once

#include "common/types.h"

namespace int8_linear {

using namespace common;

constexpr int kLanes = 16;   // outputs of a panel
constexpr int kQuad = 4;     // inputs that one instruction multiplies
constexpr int kTile = 6;     // rows that are computed together
constexpr int kBytes = kLanes * kQuad;

// How numbers are rounded to unsigned 8-bit levels: number = (level - zero_point) * scale.
struct Levels {
  float scale;
  int32_t zero_point;
};

// A packed layer. The weights lie in panels of 16 outputs; a panel has kBytes for the sums of the weights of its
// outputs, int32, and then kBytes for each four inputs: output by output, the weights of these four.
struct Layer {
  int64_t inputs, outputs;
  Levels levels;  // of the input
  const int8_t* panels;
  const float* weight_scale;
  const float* bias;  // or null

  int64_t quads() const { return (inputs + kQuad - 1) / kQuad; }
  int64_t panel_size() const { return (quads() + 1) * kBytes; }
};

// Each path computes rows [begin, end).
#define DECLARE_PATH(path)                                                                                        \
  namespace path {                                                                                                \
  template <typename T>                                                                                           \
  void linear(const Layer&, const T* input, T* output, int64_t begin, int64_t end);                               \
  template <typename T>                                                                                           \
  void feed_forward(const Layer& expansion, const Layer& projection, const T* input, T* output, int64_t begin,    \
                    int64_t end);                                                                                 \
  }
DECLARE_PATH(portable)
DECLARE_PATH(avx512_vnni)
DECLARE_PATH(avx512_bf16)
#undef DECLARE_PATH

}  // namespace int8_linear
