// The forward pass: a pipeline in which the samples of later units are located while those of the present one are
// added.
#pragma once

#include "sampling.h"

namespace deformable_conv::CPU_PATH {

constexpr int kAhead = 6;      // units located before they are needed: their arithmetic hides behind others' reads
constexpr int kFarAhead = 24;  // units whose streams are fetched before they are located
constexpr int64_t kCacheBytes = 512 << 10;
constexpr int kRing = 8;  // a power of two above kAhead

// Element distances from a cell's top left pixel to its right and lower neighbours; zero where there are none.
struct Steps {
  int64_t pixel, right, below;
  template <typename T>
  explicit Steps(const Problem<T>& p)
      : pixel(p.pixel_stride),
        right(p.width > 1 ? p.pixel_stride : 0),
        below(p.height > 1 ? p.width * p.pixel_stride : 0) {}
};

template <bool kWrite, typename T>
ALWAYS_INLINE void fetch(const T* numbers, int64_t count) {
  for (int64_t byte = 0; byte < count * int64_t(sizeof(T)); byte += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(numbers) + byte, kWrite);
}

// kVectors vectors of channels of one unit. Returns whether one of them may be NaN.
template <class V, int kVectors, typename T>
ALWAYS_INLINE bool accumulate(const Samples<Compute<T>>& samples, int points, const Steps& steps, const T* value,
                              T* out) {
  // several chains of additions, so that one need not wait for the other
  constexpr int kChains = kVectors * 4 <= V::accumulators ? 4 : kVectors * 2 <= V::accumulators ? 2 : 1;
  V total[kChains][kVectors];
  for (auto& chain : total)
    for (V& part : chain) part = V::splat(0);
#pragma GCC unroll 9
  for (int k = 0; k < points; ++k) {
    const T* pixel = value + samples.cell()[k] * steps.pixel;
    const T* below = pixel + steps.below;
    const T* corners[4] = {pixel, pixel + steps.right, below, below + steps.right};
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const V share = V::splat(samples.share(corner)[k]);
      V channels[kVectors];
      V::load_channels(corners[corner], channels);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v)
        total[corner % kChains][v] = fma(share, channels[v], total[corner % kChains][v]);
    }
  }
  V result[kVectors], all;
  for (int v = 0; v < kVectors; ++v) {
    result[v] = total[0][v];
    for (int chain = 1; chain < kChains; ++chain) result[v] = result[v] + total[chain][v];
    all = v ? all + result[v] : result[v];
  }
  V::store_channels(out, result);
  return has_nan(all);
}

// The channels from `first` on, reading only pixels that a sample really has; needs position and weight.
template <typename T>
__attribute__((noinline)) void accumulate_exactly(const Problem<T>& p, const Samples<Compute<T>>& samples,
                                                  const T* value, T* out, int64_t first) {
  using A = Compute<T>;
  constexpr int kBlock = 16;
  for (int64_t start = first; start < p.channels; start += kBlock) {
    const int n = int(p.channels - start < kBlock ? p.channels - start : kBlock);
    A total[kBlock] = {};
    for (int64_t k = 0; k < p.points; ++k) {
      const A x = samples.row(samples.kX)[k], y = samples.row(samples.kY)[k], weight = samples.row(samples.kWeight)[k];
      if (!(x > -1 && y > -1 && x < A(p.width) && y < A(p.height))) continue;
      const int64_t left = int64_t(x + 1) - 1, top = int64_t(y + 1) - 1;  // floor, as both are above -1
      for (int corner = 0; corner < 4; ++corner) {
        const int64_t column = left + corner % 2, row = top + corner / 2;
        if (column < 0 || row < 0 || column >= p.width || row >= p.height) continue;
        const A share_x = corner % 2 ? x - A(left) : 1 - (x - A(left)),
                share_y = corner / 2 ? y - A(top) : 1 - (y - A(top));
        const A share = share_x * share_y * weight;
        const T* pixel = value + (row * p.width + column) * p.pixel_stride + start;
        for (int c = 0; c < n; ++c) total[c] += share * widen(pixel[c]);
      }
    }
    for (int c = 0; c < n; ++c) narrow(total[c], out[start + c]);
  }
}

// All channels of a group: kVectors vectors where they are known at compile time, else as many as there are.
// Returns the first channel that accumulate_exactly must do, p.channels for none.
template <class V, int kVectors, typename T>
ALWAYS_INLINE int64_t accumulate_group(const Problem<T>& p, const Samples<Compute<T>>& samples, int points,
                                       const Steps& steps, const T* value, T* out) {
  if constexpr (kVectors > 0) {
    const bool nan = accumulate<V, kVectors>(samples, points, steps, value, out);
    return nan ? 0 : int64_t(kVectors) * V::size;
  } else {
    int64_t channel = 0;
    bool nan = false;
    for (; channel + 4 * V::size <= p.channels; channel += 4 * V::size)
      nan |= accumulate<V, 4>(samples, points, steps, value + channel, out + channel);
    for (; channel + V::size <= p.channels; channel += V::size)
      nan |= accumulate<V, 1>(samples, points, steps, value + channel, out + channel);
    return nan ? 0 : channel;
  }
}

template <class V, int kVectors, int kPoints, typename T>
void forward_units(const Problem<T>& p, T* output, int64_t begin, int64_t end) {
  using A = Compute<T>;
  const Sampler<T, V, kPoints> sampler(p);
  const Steps steps(p);
  const int64_t capacity = sampler.capacity(), slot = capacity * Samples<A>::kForwardRows;
  Buffer<A> buffer;
  A* const memory = buffer.at_least(slot * (kRing + 1));
  const auto ring = [&](int64_t unit) { return Samples<A>{memory + (unit & (kRing - 1)) * slot, capacity}; };
  const Samples<A> spare{memory + kRing * slot, capacity};

  // Where the second-level cache does not hold the images, what later units need is asked for ahead: rows of pixels, in
  // whose order of use the processor sees no pattern, and the streams of offsets, weights and results, which it would
  // begin to fetch too late.
  const bool fetches_ahead = p.batch * p.height * p.width * p.pixel_stride * int64_t(sizeof(T)) > kCacheBytes;
  Units<T> located(p, begin);
  const T* values[kRing];
  const int64_t units = (end - begin) * p.groups;
  const auto locate = [&](int64_t unit) __attribute__((always_inline)) {
    sampler.template locate<false>(located, ring(unit));
    values[unit & (kRing - 1)] = located.value;
    if (fetches_ahead) {
      fetch<false>(located.below, p.channels);
      fetch<false>(located.offset + kFarAhead * p.offset_strides.group, 2 * sampler.points());
      fetch<false>(located.weight + kFarAhead * p.weight_strides.group, sampler.points());
      fetch<true>(output + (begin * p.groups + unit + kFarAhead) * p.channels, p.channels);
    }
    located.next();
  };
  for (int64_t unit = 0; unit < units && unit < kAhead; ++unit) locate(unit);
  T* out = output + begin * p.groups * p.channels;
  for (int64_t unit = 0; unit < units; ++unit, out += p.channels) {
    if (unit + kAhead < units) locate(unit + kAhead);
    const T* value = values[unit & (kRing - 1)];
    const int64_t exact_from = accumulate_group<V, kVectors>(p, ring(unit), sampler.points(), steps, value, out);
    if (__builtin_expect(exact_from < p.channels, 0)) {
      sampler.template locate<true>(Units<T>(p, begin + unit / p.groups, unit % p.groups), spare);
      accumulate_exactly(p, spare, value, out, exact_from);
    }
  }
}

template <int kChannels, int kPoints, typename T>
void forward_channels(const Problem<T>& p, T* output, int64_t begin, int64_t end) {
  using V = typename Path<T>::Vector;
  forward_units<V, kChannels / V::size, kPoints>(p, output, begin, end);
}

template <typename T>
void forward(const Problem<T>& p, T* output, int64_t begin, int64_t end) {
  if constexpr (Path<T>::kSpecialised) {
    if (p.points == 9) {  // 3x3
      switch (p.channels) {
        case 16:
          return forward_channels<16, 9>(p, output, begin, end);
        case 32:
          return forward_channels<32, 9>(p, output, begin, end);
        case 64:
          return forward_channels<64, 9>(p, output, begin, end);
      }
    }
  }
  forward_channels<0, 0>(p, output, begin, end);
}

}  // namespace deformable_conv::CPU_PATH
