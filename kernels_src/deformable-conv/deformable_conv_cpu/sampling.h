// Where the samples of one unit lie and how much of them each pixel gets. A unit is one output pixel and group.
//
// The four pixels around a sample always form a 2x2 cell inside the image: the cell is clamped, and each pixel's share
// is the hat function max(0, 1 - distance), which is zero for a pixel that is no neighbour of the sample. So there is
// no branch at the border, and no read outside. The price: pixels of share zero are read, and a NaN or infinity in them
// must be kept out (see accumulate_exactly in forward.h and the masks in backward.h).
#pragma once

#include <cstdint>

#include "common/buffer.h"
#include "common/lanes.h"
#include "problem.h"

namespace deformable_conv::CPU_PATH {

using namespace common::CPU_PATH;

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

constexpr int64_t kRowsBelow = 3;  // about as far as most learned offsets reach

// Walks the units in the order image, row, column, group.
template <typename T>
class Units {
  const Problem<T>& p_;
  int64_t image_, row_, column_, group_;

  static int64_t start(const PointStrides& s, int64_t image, int64_t row, int64_t column) {
    return image * s.image + row * s.row + column * s.column;
  }

 public:
  const T* offset;
  const T* weight;
  const T* value;   // the unit's group in the image's first pixel
  const T* below;   // the unit's group some rows below the grid's origin: what later units are about to read
  Compute<T> x, y;  // where the sampling grid's origin lies

  Units(const Problem<T>& p, int64_t pixel, int64_t group = 0) : p_(p), group_(group) {
    column_ = pixel % p.out_width;
    row_ = pixel / p.out_width % p.out_height;
    image_ = pixel / p.out_width / p.out_height;
    enter_pixel();
  }
  ALWAYS_INLINE void enter_pixel() {
    offset = p_.offset + start(p_.offset_strides, image_, row_, column_) + group_ * p_.offset_strides.group;
    weight = p_.weight + start(p_.weight_strides, image_, row_, column_) + group_ * p_.weight_strides.group;
    value = p_.value + image_ * p_.image_stride + group_ * p_.channels;
    x = Compute<T>(column_) * p_.stride_x + p_.origin_x;
    y = Compute<T>(row_) * p_.stride_y + p_.origin_y;
    const int64_t row = int64_t(y) + kRowsBelow < p_.height ? int64_t(y) + kRowsBelow : p_.height - 1;
    const int64_t column = int64_t(x) < p_.width ? int64_t(x) : p_.width - 1;
    below = value + ((row > 0 ? row : 0) * p_.width + (column > 0 ? column : 0)) * p_.pixel_stride;
  }
  ALWAYS_INLINE void next() {
    if (++group_ < p_.groups) {
      offset += p_.offset_strides.group;
      weight += p_.weight_strides.group;
      value += p_.channels;
      below += p_.channels;
      return;
    }
    group_ = 0;
    if (++column_ == p_.out_width) {
      column_ = 0;
      if (++row_ == p_.out_height) row_ = 0, ++image_;
    }
    if (image_ < p_.batch) enter_pixel();
  }
};

// One axis of the image. A position that is infinite or no number gets no share and no slope: comparisons with it fail,
// and min and max prefer their second argument.
template <class V>
class Axis {
  using A = typename V::Scalar;
  V last_cell_, second_pixel_, both_pixels_;

 public:
  struct Place {
    V position, whole, cell;  // the sample, its floor, the clamped cell
    V low, high;              // shares of the cell's two pixels: 1 - |distance| and 1 - |distance - 1|, at least 0
  };

  explicit Axis(int64_t size)
      : last_cell_(V::splat(A(size > 2 ? size - 2 : 0))),
        second_pixel_(V::splat(A(size > 1 ? 1 : 0))),
        both_pixels_(V::splat(A(size > 1 ? 2 : 0))) {}

  ALWAYS_INLINE Place place(V position) const {
    const V zero = V::splat(0), one = V::splat(1);
    Place r;
    r.position = position;
    r.whole = floor(position);
    r.cell = min(max(r.whole, zero), last_cell_);
    const V distance = position - r.cell;
    r.low = max(one - abs(distance), zero);
    r.high = max(min(distance, both_pixels_ - distance), zero);
    return r;
  }

  // The slope of each share on the right of the position, zero exactly where the pixel is no neighbour of the sample.
  ALWAYS_INLINE void slopes(const Place& place, V& low, V& high) const {
    const V zero = V::splat(0), one = V::splat(1), minus = V::splat(-1);
    const auto inside = equal(place.whole, place.cell);
    const auto left_of_cell = equal(place.whole + one, place.cell) & less(minus, place.position);
    const auto right_of_cell = equal(place.whole, place.cell + one);
    low = select(inside, minus, select(left_of_cell, one, zero));
    high = select(inside, one, select(right_of_cell, minus, zero)) * second_pixel_;
  }
};

// What is known of the samples of one unit: rows of `capacity` numbers in memory of the owner.
template <typename A>
struct Samples {
  enum Row {
    kShare = 0,
    kCell = 4,
    kX,
    kY,
    kWeight,
    kForwardRows,
    kSlope = kForwardRows,
    kDot = kSlope + 4,
    kHat = kDot + 4,
    kRows = kHat + 4
  };
  A* memory;
  int64_t capacity;

  ALWAYS_INLINE A* row(int index) const { return memory + index * capacity; }
  // share of the pixels top left, top right, bottom left, bottom right, times the sample's weight
  ALWAYS_INLINE A* share(int corner) const { return row(kShare + corner); }
  ALWAYS_INLINE int32_t* cell() const { return reinterpret_cast<int32_t*>(row(kCell)); }  // top left pixel's number
};

// kPoints: the number of points where it is known at compile time, else 0.
template <typename T, class V, int kPoints>
struct Sampler {
  using A = Compute<T>;
  const A *grid_x, *grid_y;
  V scale;
  Axis<V> axis_x, axis_y;
  int32_t width;
  int runtime_points;
  bool softmax;

  explicit Sampler(const Problem<T>& p)
      : grid_x(p.grid_x),
        grid_y(p.grid_y),
        scale(V::splat(p.offset_scale)),
        axis_x(p.width),
        axis_y(p.height),
        width(int32_t(p.width)),
        runtime_points(int(p.points)),
        softmax(p.softmax) {}

  ALWAYS_INLINE int points() const { return kPoints ? kPoints : runtime_points; }
  ALWAYS_INLINE int64_t capacity() const { return round_up(points(), V::size); }
  static ALWAYS_INLINE int at_most(int n) { return n < V::size ? n : V::size; }

  __attribute__((noinline)) static A highest(const T* weight, int points) {
    A most = widen(weight[0]);
    for (int k = 1; k < points; ++k) most = widen(weight[k]) > most ? widen(weight[k]) : most;
    return most;
  }

  // The weights' softmax: the first vector of it as result, what does not fit into that in `out`. The usual shift by
  // the highest weight only matters where exponentials come near the ends of the range of numbers, which their sum
  // tells.
  ALWAYS_INLINE V normalise(const T* weight, A* out) const {
    const auto exponential = [&](int k, A shift) __attribute__((always_inline)) {
      return exp(V::load_first(weight + k, at_most(points() - k), A(-__builtin_inf())) - V::splat(shift));
    };
    const auto exponentials = [&](A shift, V& first) __attribute__((always_inline)) {
      first = exponential(0, shift);
      A total = sum(first);
      for (int k = V::size; k < points(); k += V::size) {
        const V e = exponential(k, shift);
        e.store(out + k);
        total += sum(e);
      }
      return total;
    };
    V first;
    A total = exponentials(0, first);
    if (__builtin_expect(!(total > A(1e-20) && total < A(1e20)), 0))
      total = exponentials(highest(weight, points()), first);
    const V factor = V::splat(1 / total);
    for (int k = V::size; k < points(); k += V::size) (V::load(out + k) * factor).store(out + k);
    return first * factor;
  }

  // The weights of the points k to k + n - 1; `normalised` is the result of normalise.
  ALWAYS_INLINE V point_weights(const Units<T>& unit, const Samples<A>& samples, V normalised, int k, int n) const {
    if (!softmax) return V::load_first(unit.weight + k, n, 0);
    return k ? V::load(samples.row(samples.kWeight) + k) : normalised;
  }

  // Shares and cells of a unit's samples; with kKeep also position and weight.
  template <bool kKeep>
  ALWAYS_INLINE void locate(const Units<T>& unit, const Samples<A>& samples) const {
    const V normalised = softmax ? normalise(unit.weight, samples.row(samples.kWeight)) : V::splat(0);
    for (int k = 0; k < points(); k += V::size) {
      const int n = at_most(points() - k);
      V x, y;
      V::load_pairs(unit.offset + 2 * k, n, x, y);
      const auto at_x = axis_x.place(fma(x + V::load(grid_x + k), scale, V::splat(unit.x)));
      const auto at_y = axis_y.place(fma(y + V::load(grid_y + k), scale, V::splat(unit.y)));
      const V weight = point_weights(unit, samples, normalised, k, n);
      const V top = at_y.low * weight, bottom = at_y.high * weight;
      (top * at_x.low).store(samples.share(0) + k);
      (top * at_x.high).store(samples.share(1) + k);
      (bottom * at_x.low).store(samples.share(2) + k);
      (bottom * at_x.high).store(samples.share(3) + k);
      V::store_indices(samples.cell() + k, at_x.cell, at_y.cell, width);
      if (kKeep) {
        at_x.position.store(samples.row(samples.kX) + k);
        at_y.position.store(samples.row(samples.kY) + k);
        weight.store(samples.row(samples.kWeight) + k);
      }
    }
  }

  // For the gradients: shares (zero exactly for pixels that do not exist), cells, hat functions, slopes and weight.
  ALWAYS_INLINE void locate_with_slopes(const Units<T>& unit, const Samples<A>& samples) const {
    const V zero = V::splat(0);
    const V normalised = softmax ? normalise(unit.weight, samples.row(samples.kWeight)) : V::splat(0);
    for (int k = 0; k < points(); k += V::size) {
      const int n = at_most(points() - k);
      V x, y, slope[4];
      V::load_pairs(unit.offset + 2 * k, n, x, y);
      const auto at_x = axis_x.place(fma(x + V::load(grid_x + k), scale, V::splat(unit.x)));
      const auto at_y = axis_y.place(fma(y + V::load(grid_y + k), scale, V::splat(unit.y)));
      axis_x.slopes(at_x, slope[0], slope[1]);
      axis_y.slopes(at_y, slope[2], slope[3]);
      const V weight = point_weights(unit, samples, normalised, k, n);
      const V hat[4] = {at_x.low, at_x.high, at_y.low, at_y.high};
      for (int corner = 0; corner < 4; ++corner) {
        const V share = hat[2 + corner / 2] * hat[corner % 2] * weight;
        const auto missing = equal(slope[2 + corner / 2], zero) | equal(slope[corner % 2], zero);
        select(missing, zero, share).store(samples.share(corner) + k);
      }
      V::store_indices(samples.cell() + k, at_x.cell, at_y.cell, width);
      for (int i = 0; i < 4; ++i) {
        slope[i].store(samples.row(samples.kSlope + i) + k);
        hat[i].store(samples.row(samples.kHat + i) + k);
      }
      weight.store(samples.row(samples.kWeight) + k);
    }
  }
};

}  // namespace deformable_conv::CPU_PATH
