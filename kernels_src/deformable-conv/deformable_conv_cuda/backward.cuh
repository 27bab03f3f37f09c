// The backward pass: each sample's dot products with the output's gradient, from which the gradients of offset and
// weight follow; the gradient of value by atomics, unless it is added up in order (see grad_value.cuh).
#pragma once

#include "sampling.cuh"

namespace deformable_conv {

// dots[corner] = sum over some channels of the gradient times the corner's pixel; pixels get their share of it
template <int kSize, typename T>
__device__ void visit(const Problem<T>& p, const typename Samples<Compute<T>>::Shares& shares, const T* pixel,
                      Compute<T>* grad_pixel, int64_t right, int64_t below, const Compute<T> (&gradient)[kSize],
                      Compute<T> (&dots)[4]) {
  using A = Compute<T>;
  Pack<T, kSize> corners[4] = {};
#pragma unroll
  for (int corner = 0; corner < 4; ++corner)
    if (!is_missing(shares.corner[corner]))
      corners[corner] = Pack<T, kSize>::load(pixel + corner % 2 * p.right + corner / 2 * p.below);
#pragma unroll
  for (int corner = 0; corner < 4; ++corner)
#pragma unroll
    for (int i = 0; i < kSize; ++i) dots[corner] = fma(gradient[i], corners[corner][i], dots[corner]);
  if (!grad_pixel) return;
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    if (is_missing(shares.corner[corner])) continue;
    A parts[kSize];
#pragma unroll
    for (int i = 0; i < kSize; ++i) parts[i] = shares.corner[corner] * gradient[i];
    atomic_add(grad_pixel + corner % 2 * right + corner / 2 * below, parts);
  }
}

// The gradient of a sample's weight, and of its position for a weight of one, from its dot products
template <typename T>
struct SampleGradient {
  using A = Compute<T>;
  A weight = 0, x = 0, y = 0;
  bool somewhere = false;

  __device__ SampleGradient(const Sample<T>& sample, const A* dots) {
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      if (!sample.has(corner)) continue;
      const int right = corner % 2, bottom = corner / 2;
      const A dot = dots[corner];
      weight += sample.x.share[right] * sample.y.share[bottom] * dot;
      x += sample.x.slope[right] * sample.y.share[bottom] * dot;
      y += sample.x.share[right] * sample.y.slope[bottom] * dot;
      somewhere = true;
    }
  }
};

// gradients.value may be null: then only offset and weight get theirs.
template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads, min_blocks_per_multiprocessor<T>())
    backward_kernel(Problem<T> p, Gradients<T> gradients, int log2_threads) {
  using A = Compute<T>;
  const Tile tile(log2_threads);
  const TileUnit<T> unit(p, tile);
  const int most = capacity<A>(p.points);
  const Samples<A> samples(tile, most);
  const Weights<T> weights(p, unit, &tile);
  const int64_t pixel_stride = int64_t(p.groups) * p.channels;  // of the gradient of value
  A* const grad_value =
      gradients.value && unit.exists
          ? gradients.value + (int64_t(unit.image) * p.height * p.width * p.groups + unit.group) * p.channels
          : nullptr;
  const T* const grad_output = gradients.output + unit.index * p.channels;

  // With softmax a weight's gradient needs the sum over all points: where they do not fit into shared memory at once,
  // a sweep of its own finds it.
  const int first_sweep = p.softmax && p.points > most ? 0 : 1;
  A weighted_total = 0;
  for (int sweep = first_sweep; sweep < 2; ++sweep) {
    for (int first = 0; first < p.points; first += most) {
      const int count = min(p.points - first, most);
      samples.locate(p, unit, weights, tile, first, count);
      for (int base = 0; base < p.channels; base += tile.num_threads * kSize) {
        const int channel = base + tile.thread_rank * kSize;
        const bool active = channel < p.channels;
        A gradient[kSize] = {};
        if (active) {
          const auto pack = Pack<T, kSize>::load(grad_output + channel);
#pragma unroll
          for (int i = 0; i < kSize; ++i) gradient[i] = pack[i];
        }
        for (int k = 0; k < count; ++k) {
          A dots[4] = {};
          if (active) {
            const int64_t cell = samples.cells[k];
            visit(p, samples.shares[k], unit.value + cell * p.pixel_stride + channel,
                  sweep && grad_value ? grad_value + cell * pixel_stride + channel : nullptr, pixel_stride,
                  p.width * pixel_stride, gradient, dots);
          }
          const A dot = tile.sum_four(dots);
          A& slot = samples.dots[4 * k + tile.sum_rank()];
          if (tile.thread_rank < 4) slot = base ? slot + dot : dot;
        }
      }
      __syncwarp();
      A weighted = 0;
      for (int k = tile.thread_rank; k < count; k += tile.num_threads) {
        const Sample<T> sample(p, unit, first + k);
        const SampleGradient<T> of(sample, samples.dots + 4 * k);
        const A weight = weights[first + k];
        weighted += weight * of.weight;
        samples.dots[4 * k] = of.weight;
        if (!sweep || !unit.exists) continue;
        Pack<T, 2> result;
        const A factor = of.somewhere ? weight * p.offset_scale : 0;
        narrow(factor * of.x, result.values[0]);
        narrow(factor * of.y, result.values[1]);
        result.store(gradients.offset + (unit.index * p.points + first + k) * 2);
      }
      if (p.softmax && sweep == first_sweep) weighted_total += tile.sum(weighted);
      if (!sweep || !unit.exists) continue;
      for (int k = tile.thread_rank; k < count; k += tile.num_threads) {
        const A of_weight = samples.dots[4 * k];
        narrow(p.softmax ? weights[first + k] * (of_weight - weighted_total) : of_weight,
               gradients.weight[unit.index * p.points + first + k]);
      }
    }
  }
}

}  // namespace deformable_conv
