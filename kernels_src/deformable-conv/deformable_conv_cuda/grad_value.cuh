// The gradient of value in a fixed order: what it costs to be deterministic.
//
// A warp owns some pixels of one image and group. It looks at all samples of them, a warp at a time and corner by
// corner, and adds what falls on its own pixels. So each sum has one order, whoever owns it, and needs no atomics.
// Fixed-point atomics would be faster, but have too few bits for float64 and none for numbers that are not finite.
#pragma once

#include "sampling.cuh"

namespace deformable_conv {

template <typename T>
__global__ void __launch_bounds__(kThreads)
    grad_value_kernel(Problem<T> p, const T* grad_output, Compute<T>* grad_value, uint32_t owners) {
  using A = Compute<T>;
  const uint32_t warp = blockIdx.x * (kThreads / kWarpSize) + threadIdx.x / kWarpSize;
  const uint32_t lane = threadIdx.x % kWarpSize;
  const uint32_t owner = warp % owners, group = warp / owners % p.groups;
  const int64_t image = warp / owners / p.groups;
  if (image >= p.batch) return;
  const int64_t pixels = int64_t(p.out_height) * p.out_width;
  uint32_t pixel = lane / p.points;
  int point = lane % p.points;
  for (int64_t start = 0; start < pixels * p.points; start += kWarpSize) {
    const bool exists = pixel < pixels;
    const Unit<T> unit(p, image, (exists ? pixel : 0) * p.groups + group);
    const Sample<T> sample(p, unit, point);
    const A weight = Weights<T>(p, unit, nullptr)[point];
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const int32_t at = sample.cell(p) + corner % 2 + corner / 2 * p.width;
      const bool mine = exists && sample.has(corner) && uint32_t(at) % owners == owner;
      const A share = sample.share(corner, weight);
      for (unsigned left = __ballot_sync(kFullMask, mine); left; left &= left - 1) {
        const int source = __ffs(left) - 1;
        const int64_t from = image * pixels + __shfl_sync(kFullMask, pixel, source);
        const int64_t to = image * p.height * p.width + __shfl_sync(kFullMask, at, source);
        const A factor = __shfl_sync(kFullMask, share, source);
        const T* gradient = grad_output + (from * p.groups + group) * p.channels;
        A* sum = grad_value + (to * p.groups + group) * p.channels;
        for (int channel = lane; channel < p.channels; channel += kWarpSize)
          sum[channel] = fma(factor, widen(gradient[channel]), sum[channel]);
      }
    }
    pixel += kWarpSize / p.points;
    point += kWarpSize % p.points;
    if (point >= p.points) point -= p.points, ++pixel;
  }
}

}  // namespace deformable_conv
