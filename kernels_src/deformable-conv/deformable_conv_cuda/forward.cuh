// The forward pass: a tile of lanes locates its unit's samples, then each lane adds up some channels of them.
#pragma once

#include "sampling.cuh"

namespace deformable_conv {

// kExact: only pixels that a sample really has. Else missing ones are read too, and count zero times their number,
// which is NaN where the number is not finite.
template <bool kExact, int kSize, typename T>
__device__ void accumulate(const Problem<T>& p, const Samples<Compute<T>>& samples, int count, const T* value,
                           Compute<T> (&total)[kSize]) {
  using A = Compute<T>;
#pragma unroll(kExact ? 1 : 3)
  for (int k = 0; k < count; ++k) {
    const auto shares = samples.shares[k];
    const T* pixel = value + int64_t(samples.cells[k]) * p.pixel_stride;
    const Pack<T, kSize> corners[4] = {Pack<T, kSize>::load(pixel), Pack<T, kSize>::load(pixel + p.right),
                                       Pack<T, kSize>::load(pixel + p.below),
                                       Pack<T, kSize>::load(pixel + p.below + p.right)};
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const A share = shares.corner[corner];
      if (kExact && is_missing(share)) continue;
#pragma unroll
      for (int i = 0; i < kSize; ++i) total[i] = fma(share, corners[corner][i], total[i]);
    }
  }
}

template <int kSize, typename A>
__device__ bool has_nan(const A (&numbers)[kSize]) {
  bool nan = false;
  for (int i = 0; i < kSize; ++i) nan |= numbers[i] != numbers[i];
  return nan;
}

template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads, min_blocks_per_multiprocessor<T>())
    forward_kernel(Problem<T> p, T* output, int log2_threads) {
  using A = Compute<T>;
  const Tile tile(log2_threads);
  const TileUnit<T> unit(p, tile);
  const int most = capacity<A>(p.points);
  const Samples<A> samples(tile, most);
  const Weights<T> weights(p, unit, &tile);
  for (int base = 0; base < p.channels; base += tile.num_threads * kSize) {
    const int channel = base + tile.thread_rank * kSize;
    const bool active = channel < p.channels;
    A total[kSize];
    for (int exact = 0; exact < 2; ++exact) {
      for (A& x : total) x = 0;
      for (int first = 0; first < p.points; first += most) {
        const int count = min(p.points - first, most);
        if ((base == 0 && !exact) || p.points > most) samples.locate(p, unit, weights, tile, first, count);
        if (!active) continue;
        if (exact)
          accumulate<true>(p, samples, count, unit.value + channel, total);
        else
          accumulate<false>(p, samples, count, unit.value + channel, total);
      }
      if (!__any_sync(kFullMask, has_nan(total))) break;
    }
    if (!active || !unit.exists) continue;
    Pack<T, kSize> result;
#pragma unroll
    for (int i = 0; i < kSize; ++i) narrow(total[i], result.values[i]);
    result.store(output + unit.index * p.channels + channel);
  }
}

}  // namespace deformable_conv
