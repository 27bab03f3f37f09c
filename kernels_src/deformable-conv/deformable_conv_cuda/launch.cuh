// Which kernel runs, and how many lanes and blocks of it.
#pragma once

#include "common/launch.cuh"

#include "backward.cuh"
#include "forward.cuh"
#include "grad_value.cuh"

namespace deformable_conv {

// The most bytes, a power of two, at which all of these lie
template <typename... Distances>
uint64_t alignment(Distances... bytes) {
  const uint64_t all = (uint64_t(bytes) | ...);
  return all & (~all + 1);
}

// Call f with a constant: how many channels a lane takes at once. That is the most, up to kMost bytes, that the layout
// of value, output or its gradient allows.
template <int kMost, typename T, typename F>
cudaError_t with_pack_size(const Problem<T>& p, const void* output, F f) {
  const uint64_t most = alignment(uint64_t(kMost), uint64_t(p.value), uint64_t(output), p.channels * sizeof(T),
                                  p.pixel_stride * sizeof(T), p.image_stride * sizeof(T));
  if constexpr (kMost >= 16)
    if (most == 16) return f(std::integral_constant<int, 16 / sizeof(T)>());
  if constexpr (kMost >= 8)
    if (most == 8) return f(std::integral_constant<int, 8 / sizeof(T)>());
  if constexpr (sizeof(T) <= 4)
    if (most == 4) return f(std::integral_constant<int, 4 / sizeof(T)>());
  return f(std::integral_constant<int, 1>());
}

// A tile for each unit, with lanes for all its channels if a warp has them
template <typename T, typename... Parameters, typename... Arguments>
cudaError_t launch_tiles(void (*kernel)(Parameters...), const Problem<T>& p, int pack_size, int log2_threads,
                         bool with_dots, cudaStream_t stream, Arguments... arguments) {
  using A = Compute<T>;
  while (log2_threads < 5 && pack_size << log2_threads < p.channels) ++log2_threads;
  const int tiles = kThreads >> log2_threads;
  const int shared_bytes = tiles * capacity<A>(p.points) * Samples<A>::bytes(with_dots);
  return launch(kernel, p.batch * image_blocks(p, tiles), kThreads, shared_bytes, stream, p, arguments...,
                log2_threads);
}

template <typename T>
cudaError_t launch_forward(const Problem<T>& p, T* output, cudaStream_t stream) {
  return with_pack_size<16>(p, output, [&](auto size) {
    return launch_tiles(&forward_kernel<T, size()>, p, size(), 0, false, stream, output);
  });
}

// Without `atomics`, the gradient of value is added up in a fixed order.
template <typename T>
cudaError_t launch_backward(const Problem<T>& p, Gradients<T> gradients, bool atomics, cudaStream_t stream) {
  // four channels for a lane, so that its part of a pixel's gradient is one atomic
  constexpr int kMost = sizeof(T) == 8 ? 16 : 4 * sizeof(T);
  Compute<T>* const grad_value = gradients.value;
  if (!atomics) gradients.value = nullptr;
  const cudaError_t error = with_pack_size<kMost>(p, gradients.output, [&](auto size) {
    return launch_tiles(&backward_kernel<T, size()>, p, size(), 2, true, stream, gradients);
  });
  if (atomics || error != cudaSuccess) return error;

  constexpr int kWarps = kThreads / kWarpSize, kEnoughWarps = 4096;  // about what a large GPU runs at once
  uint32_t owners = kWarps;
  while (owners < 256 && p.batch * p.groups * owners < kEnoughWarps) owners *= 2;
  return launch(&grad_value_kernel<T>, p.batch * p.groups * owners / kWarps, kThreads, 0, stream, p, gradients.output,
                grad_value, owners);
}

}  // namespace deformable_conv
