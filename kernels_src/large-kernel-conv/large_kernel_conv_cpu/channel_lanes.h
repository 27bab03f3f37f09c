// One number for each channel of a block.
#pragma once

#include "common/buffer.h"
#include "common/numbers.h"
#include "problem.h"

namespace large_kernel_conv::CPU_PATH {

using namespace common::CPU_PATH;

// The view of one channel, or of the channels from one on, in one image
template <typename T>
ALWAYS_INLINE View<T> at(View<T> view, int64_t image, int64_t channel) {
  view.data += image * view.image + channel * view.channel;
  return view;
}

// kRows x kColumns is the largest tile of outputs that the registers hold beside the factors, of one tap each.
template <typename A, int N, int kRows_, int kColumns_>
struct ChannelLanes {
  static constexpr int size = N, kRows = kRows_, kColumns = kColumns_, kTaps = 1;
  static constexpr bool kFiniteOnly = false;
  using Scalar = A;
  using Element = A;  // of a factor
  using Factor = ChannelLanes;
  typedef A Vector __attribute__((vector_size(N * sizeof(A)), may_alias));
  Vector v;

  static ALWAYS_INLINE ChannelLanes zero() { return {Vector{}}; }
  static ALWAYS_INLINE ChannelLanes load(const A* p) { return {*reinterpret_cast<const Vector*>(p)}; }  // p is aligned
  ALWAYS_INLINE void store(A* p) const { *reinterpret_cast<Vector*>(p) = v; }
  ALWAYS_INLINE void add(ChannelLanes a) { v += a.v; }
  ALWAYS_INLINE void add_product(ChannelLanes a, ChannelLanes b) { v += a.v * b.v; }  // fused where the processor can
};

}  // namespace large_kernel_conv::CPU_PATH
