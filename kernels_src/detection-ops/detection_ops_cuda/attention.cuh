// Deformable attention: forward, a thread for each unit and channel; backward, a warp for each unit.
#pragma once

#include "problem.cuh"

namespace detection_ops {

// One sample of a unit, and the pixels around it: its corners top left, top right, bottom left, bottom right.
template <typename A>
struct Sample {
  int32_t place[4];  // number of the pixel among all positions, -1 for one that does not exist
  A share[4];        // bilinear factor
  A x, y;            // how far the sample lies right of its left corners, and below its top ones
  A width, height;   // of its level
  A weight;
  bool inside;  // a position that is no number lies nowhere, as comparisons with it fail

  template <typename T>
  __device__ Sample(const AttentionProblem<T>& p, int64_t unit, int k) {
    const int64_t number = unit * p.levels * p.points + k;
    const Level level = p.level[k / p.points];
    width = A(level.width), height = A(level.height), weight = widen(p.weights[number]);
    x = fma(widen(p.locations[2 * number]), width, A(-0.5));
    y = fma(widen(p.locations[2 * number + 1]), height, A(-0.5));
    inside = x > -1 && y > -1 && x < width && y < height;
    const int32_t left = inside ? int32_t(floor(x)) : 0, top = inside ? int32_t(floor(y)) : 0;
    x = inside ? x - A(left) : 0, y = inside ? y - A(top) : 0;
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const int32_t column = left + corner % 2, row = top + corner / 2;
      const bool exists = inside && column >= 0 && row >= 0 && column < level.width && row < level.height;
      place[corner] = exists ? level.start + row * level.width + column : -1;
      share[corner] = (corner % 2 ? x : 1 - x) * (corner / 2 ? y : 1 - y);
    }
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads) attend_kernel(AttentionProblem<T> p, T* output) {
  using A = Compute<T>;
  const int64_t number = thread_number(), unit = number / p.channels;
  if (unit >= p.units) return;
  const T* const value = p.value + p.start(unit) + number % p.channels;
  A total = 0;
  for (int k = 0; k < p.levels * p.points; ++k) {
    const Sample<A> sample(p, unit, k);
#pragma unroll
    for (int corner = 0; corner < 4; ++corner)
      if (sample.place[corner] >= 0)
        total = fma(sample.share[corner] * sample.weight,
                    widen(value[int64_t(sample.place[corner]) * p.heads * p.channels]), total);
  }
  narrow(total, output[number]);
}

template <typename A>
__device__ A sum_of_warp(A x) {
#pragma unroll
  for (int step = kWarpSize / 2; step; step /= 2) x += __shfl_xor_sync(kFullMask, x, step);
  return x;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    attend_backward_kernel(AttentionProblem<T> p, AttentionGradients<T> gradients) {
  using A = Compute<T>;
  const int64_t unit = thread_number() / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  if (unit >= p.units) return;  // all lanes of a warp, then
  const int64_t start = p.start(unit);
  for (int k = 0; k < p.levels * p.points; ++k) {
    const Sample<A> sample(p, unit, k);
    A dot[4] = {};  // the gradient of the output times the corner's pixel
    for (int channel = lane; channel < p.channels; channel += kWarpSize) {
      const A gradient = widen(gradients.output[unit * p.channels + channel]);
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        if (sample.place[corner] < 0) continue;
        const int64_t at = start + int64_t(sample.place[corner]) * p.heads * p.channels + channel;
        dot[corner] = fma(gradient, widen(p.value[at]), dot[corner]);
        atomicAdd(gradients.value + at, sample.share[corner] * sample.weight * gradient);
      }
    }
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) dot[corner] = sum_of_warp(dot[corner]);
    if (lane) continue;
    const A top_slope = dot[1] - dot[0], bottom_slope = dot[3] - dot[2];
    const A top = dot[0] + sample.x * top_slope, bottom = dot[2] + sample.x * bottom_slope;
    const int64_t number = unit * p.levels * p.points + k;
    const A by_x = sample.weight * sample.width * ((1 - sample.y) * top_slope + sample.y * bottom_slope);
    const A by_y = sample.weight * sample.height * (bottom - top);
    narrow(sample.inside ? by_x : A(0), gradients.locations[2 * number]);
    narrow(sample.inside ? by_y : A(0), gradients.locations[2 * number + 1]);
    narrow((1 - sample.y) * top + sample.y * bottom, gradients.weights[number]);
  }
}

}  // namespace detection_ops
