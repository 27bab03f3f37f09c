// Deformable attention. A unit is a query and a head: what has samples of its own. Lanes are points while samples are
// located, and channels while they are added.
#pragma once

#include <cstring>

#include "common/buffer.h"
#include "common/lanes.h"
#include "problem.h"

namespace detection_ops::CPU_PATH {

using namespace common::CPU_PATH;

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// What is known of the samples of one unit: rows of `capacity` numbers, a number for each point. The corners of a
// sample are the pixels around it, in the order top left, top right, bottom left, bottom right.
template <typename A>
class Samples {
  enum Row { kShare = 0, kPlace = 4, kX = 8, kY, kWeight, kInside, kDot, kRows = kDot + 4 };
  Buffer<A> memory_;
  int64_t capacity_;
  A* rows_;

  A* row(int index) const { return rows_ + index * capacity_; }

 public:
  explicit Samples(int64_t capacity) : capacity_(capacity), rows_(memory_.at_least(kRows * capacity)) {}

  A* share(int corner) const { return row(kShare + corner); }  // what its pixel counts for, times the sample's weight
  // the number of its pixel among all positions, -1 for one that does not exist
  int32_t* place(int corner) const { return reinterpret_cast<int32_t*>(row(kPlace + corner)); }
  A* x() const { return row(kX); }  // how far the sample lies right of its left corners, and below its top ones
  A* y() const { return row(kY); }
  A* weight() const { return row(kWeight); }
  A* inside() const { return row(kInside); }               // 1 where the sample has corners, else 0
  A* dot(int corner) const { return row(kDot + corner); }  // its pixel times the gradient of the output
};

// Where the samples of a unit lie. A position that is no number lies nowhere, as comparisons with it fail.
template <class V, typename T>
ALWAYS_INLINE void locate(const AttentionProblem<T>& p, int64_t unit, const Samples<Compute<T>>& samples) {
  const V zero = V::splat(0), one = V::splat(1), minus = V::splat(-1);
  const T* const locations = p.locations + unit * p.points * 2;
  const T* const weights = p.weights + unit * p.points;
  for (int64_t k = 0; k < p.points; k += V::size) {
    const int n = int(p.points - k < V::size ? p.points - k : V::size);
    const V width = V::load(p.width + k), height = V::load(p.height + k), start = V::load(p.start + k);
    V x, y;
    V::load_pairs(locations + 2 * k, n, x, y);
    x = fma(x, width, V::splat(-0.5)), y = fma(y, height, V::splat(-0.5));
    const auto inside = less(minus, x) & less(minus, y) & less(x, width) & less(y, height);
    x = select(inside, x, zero), y = select(inside, y, zero);
    const V left = floor(x), top = floor(y), weight = V::load_first(weights + k, n, 0);
    x = x - left, y = y - top;
    for (int corner = 0; corner < 4; ++corner) {
      const V column = corner % 2 ? left + one : left, row = corner / 2 ? top + one : top;
      const auto exists = inside & less(minus, column) & less(minus, row) & less(column, width) & less(row, height);
      const V share = (corner % 2 ? x : one - x) * (corner / 2 ? y : one - y) * weight;
      select(exists, share, zero).store(samples.share(corner) + k);
      V::store_indices(samples.place(corner) + k, select(exists, fma(row, width, column) + start, minus), zero, 0);
    }
    x.store(samples.x() + k);
    y.store(samples.y() + k);
    weight.store(samples.weight() + k);
    select(inside, one, zero).store(samples.inside() + k);
  }
}

// kVectors vectors of channels of one unit, of the last the first n; `value` is those in the first position, and
// `zeros` what is read for pixels that do not exist.
template <class V, int kVectors, typename T>
ALWAYS_INLINE void accumulate(const Samples<Compute<T>>& samples, int64_t points, const T* value, int64_t stride,
                              const T* zeros, int n, T* out) {
  // several chains of additions, so that one need not wait for the other
  constexpr int kChains = kVectors * 4 <= V::accumulators ? 4 : kVectors * 2 <= V::accumulators ? 2 : 1;
  V total[kChains][kVectors];
  for (auto& chain : total)
    for (V& part : chain) part = V::splat(0);
  for (int64_t k = 0; k < points; ++k) {
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const int64_t place = samples.place(corner)[k];
      const T* const pixel = place < 0 ? zeros : value + place * stride;
      const V share = V::splat(samples.share(corner)[k]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const V channels = n == V::size ? V::load(pixel + v * V::size) : V::load_first(pixel + v * V::size, n, 0);
        total[corner % kChains][v] = fma(share, channels, total[corner % kChains][v]);
      }
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    V result = total[0][v];
    for (int chain = 1; chain < kChains; ++chain) result = result + total[chain][v];
    result.store_first(out + v * V::size, n);
  }
}

template <typename T>
void attend(const AttentionProblem<T>& p, T* output, int64_t begin, int64_t end) {
  using A = Compute<T>;
  using V = typename Path<T>::Vector;
  const Samples<A> samples(round_up(p.points, V::size));
  Buffer<T> memory;
  T* const zeros = memory.at_least(p.channels);
  memset(zeros, 0, size_t(p.channels) * sizeof(T));
  const int64_t stride = p.heads * p.channels;
  for (int64_t unit = begin * p.heads; unit < end * p.heads; ++unit) {
    locate<V>(p, unit, samples);
    const int64_t head = unit % p.heads, image = unit / p.heads / p.queries;
    const T* const value = p.value + (image * p.positions * p.heads + head) * p.channels;
    T* const out = output + unit * p.channels;
    int64_t c = 0;
    for (; c + 4 * V::size <= p.channels; c += 4 * V::size)
      accumulate<V, 4>(samples, p.points, value + c, stride, zeros, V::size, out + c);
    for (; c + 2 * V::size <= p.channels; c += 2 * V::size)
      accumulate<V, 2>(samples, p.points, value + c, stride, zeros, V::size, out + c);
    for (; c < p.channels; c += V::size) {
      const int64_t left = p.channels - c;
      accumulate<V, 1>(samples, p.points, value + c, stride, zeros, int(left < V::size ? left : V::size), out + c);
    }
  }
}

}  // namespace detection_ops::CPU_PATH
