// RoIAlign. The samples of a bin lie on a grid, so that a pixel's share of a bin is a product: of that which its row
// has of the bin's rows of samples, and that which its column has of the columns. Lanes are channels.
#pragma once

#include <cstring>

#include "common/buffer.h"
#include "common/lanes.h"
#include "problem.h"

namespace detection_ops::CPU_PATH {

using namespace common::CPU_PATH;

// The bins of one region on one axis: which pixels they read, and the share that each has.
template <typename A>
class Bins {
  struct Range {
    int64_t begin, end;  // pixels
    A* shares;           // of `begin` and those after it
  };
  Buffer<Range> range_memory_;
  Buffer<A> share_memory_;
  Range* ranges_;
  int64_t count_;

 public:
  int64_t begin = 0, end = 0;  // the pixels of all bins

  explicit Bins(int64_t count) : ranges_(range_memory_.at_least(count)), count_(count) {}

  const Range& operator[](int64_t bin) const { return ranges_[bin]; }

  // For a region from edge to edge, where the centre of pixel i lies at i. One that is not finite has no pixels.
  void set(A first_edge, A last_edge, int64_t pixels) {
    const A side = (last_edge - first_edge) / A(count_);  // of a bin
    const int64_t samples = side > 0 && side < A(1e15) ? ceil_of(side) : 0;
    const int64_t capacity = (samples < pixels ? samples : pixels) + 2;
    A* shares = share_memory_.at_least(count_ * capacity);
    memset(shares, 0, size_t(count_ * capacity) * sizeof(A));
    begin = pixels, end = 0;
    for (int64_t bin = 0; bin < count_; ++bin, shares += capacity) {
      Range& range = ranges_[bin] = {0, 0, shares};
      const A start = first_edge + A(bin) * side;
      // a region may be far larger than the map, so not all samples are looked at; they are 1/2 to 1 pixel apart
      const double before = -4 - double(start), after = 2 * (double(pixels) - double(start) + 4);
      for (int64_t sample = within(before, samples); sample < within(after, samples); ++sample) {
        const A position = start + (A(sample) + A(0.5)) * side / A(samples);
        if (position >= -1 && position <= A(pixels)) add(range, position, pixels - 1, 1 / A(samples));
      }
      if (range.begin == range.end) continue;
      begin = range.begin < begin ? range.begin : begin;
      end = range.end > end ? range.end : end;
    }
  }

 private:
  static int64_t within(double number, int64_t most) {
    return number < double(most) ? int64_t(number > 0 ? number : 0) : most;
  }
  static int64_t ceil_of(A number) { return int64_t(number) + (A(int64_t(number)) < number); }

  // A sample, which lies at or after those that the range has.
  static void add(Range& range, A position, int64_t last_pixel, A share) {
    const int64_t low = position < 0 ? 0 : position < A(last_pixel) ? int64_t(position) : last_pixel;
    const A beyond = position < 0 || low == last_pixel ? 0 : position - A(low);
    if (range.begin == range.end) range.begin = low;
    range.shares[low - range.begin] += share * (1 - beyond);
    if (beyond > 0) range.shares[low + 1 - range.begin] += share * beyond;
    range.end = low + 1 + (beyond > 0) > range.end ? low + 1 + (beyond > 0) : range.end;
  }
};

// The bins of a region, and memory for what is added up in them: kBlock channels for each pixel or bin.
template <typename T>
struct Region {
  using A = Compute<T>;
  const RoiProblem<T>& p;
  Bins<A> rows, columns;
  Buffer<A> pixel_memory, row_memory, bin_memory;
  A* const pixels;       // of one row
  A* const bins_of_row;  // the sums of one row, or over the bins of one column
  A* const bins;         // of the region, row by row
  int64_t image = 0;

  explicit Region(const RoiProblem<T>& p)
      : p(p),
        rows(p.output_size),
        columns(p.output_size),
        pixels(pixel_memory.at_least(p.width * kBlock)),
        bins_of_row(row_memory.at_least(p.output_size * kBlock)),
        bins(bin_memory.at_least(p.output_size * p.output_size * kBlock)) {}

  void enter(int64_t number) {
    const A* const roi = p.rois + number * 5;
    const auto edge = [&](int i) { return roi[i] * p.spatial_scale - A(0.5); };
    image = int64_t(roi[0]);
    columns.set(edge(1), edge(3), p.width);
    rows.set(edge(2), edge(4), p.height);
  }
};

// sums[i] += share * numbers[i]
template <class V, typename A>
ALWAYS_INLINE void add_share(A share, const A* numbers, A* sums, int64_t count) {
  for (int64_t i = 0; i < count; i += V::size)
    fma(V::splat(share), V::load(numbers + i), V::load(sums + i)).store(sums + i);
}

// sums = shares[0] * pixel 0 + shares[1] * pixel 1 + ...; kBlock channels of each
template <class V, typename A>
ALWAYS_INLINE void sum_shares(const A* shares, const A* pixels, int64_t count, A* sums) {
  constexpr int kVectors = kBlock / V::size;
  V total[kVectors];
  for (V& part : total) part = V::splat(0);
  for (int64_t i = 0; i < count; ++i, pixels += kBlock)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) total[v] = fma(V::splat(shares[i]), V::load(pixels + v * V::size), total[v]);
  for (int v = 0; v < kVectors; ++v) total[v].store(sums + v * V::size);
}

// The first n of kBlock channels of pixels in a row, the rest as zeros; `from` is the first of them in the first pixel
template <class V, typename T>
ALWAYS_INLINE void load_pixels(const T* from, const FeatureStrides& strides, int64_t count, int64_t n,
                               Compute<T>* pixels) {
  if (strides.channel == 1) {
    for (int64_t x = 0; x < count; ++x)
      for (int64_t c = 0; c < kBlock; c += V::size) {
        const int64_t left = n - c < 0 ? 0 : n - c < V::size ? n - c : V::size;
        V::load_first(from + x * strides.column + c, int(left), 0).store(pixels + x * kBlock + c);
      }
    return;
  }
  for (int64_t c = 0; c < kBlock; ++c)
    for (int64_t x = 0; x < count; ++x)
      pixels[x * kBlock + c] = c < n ? widen(from[c * strides.channel + x * strides.column]) : 0;
}

// kBlock channels of a region, which are added up in its bins
template <class V, typename T>
void pool(const RoiProblem<T>& p, const T* features, int64_t n, Region<T>& region) {
  using A = Compute<T>;
  const int64_t side = p.output_size;
  const auto &rows = region.rows, &columns = region.columns;
  memset(region.bins, 0, size_t(side * side * kBlock) * sizeof(A));
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    const T* const from = features + y * p.strides.row + columns.begin * p.strides.column;
    load_pixels<V>(from, p.strides, columns.end - columns.begin, n, region.pixels);
    for (int64_t column = 0; column < side; ++column) {
      const auto& range = columns[column];
      sum_shares<V>(range.shares, region.pixels + (range.begin - columns.begin) * kBlock, range.end - range.begin,
                    region.bins_of_row + column * kBlock);
    }
    for (int64_t row = 0; row < side; ++row)
      if (y >= rows[row].begin && y < rows[row].end)
        add_share<V>(rows[row].shares[y - rows[row].begin], region.bins_of_row, region.bins + row * side * kBlock,
                     side * kBlock);
  }
}

template <typename T>
void roi_align(const RoiProblem<T>& p, const T* features, T* output, int64_t begin, int64_t end) {
  const int64_t bins = p.output_size * p.output_size;
  Region<T> region(p);
  for (int64_t number = begin; number < end; ++number) {
    region.enter(number);
    for (int64_t channel = 0; channel < p.channels; channel += kBlock) {
      const int64_t n = p.channels - channel < kBlock ? p.channels - channel : kBlock;
      pool<typename Path<T>::Vector>(p, features + region.image * p.strides.image + channel * p.strides.channel, n,
                                     region);
      T* const out = output + (number * p.channels + channel) * bins;
      for (int64_t c = 0; c < n; ++c)
        for (int64_t bin = 0; bin < bins; ++bin) narrow(region.bins[bin * kBlock + c], out[c * bins + bin]);
    }
  }
}

// The gradient of kBlock channels of a region's pixels, which is added to `sums`, those of the whole map
template <class V, typename T>
void spread(const RoiProblem<T>& p, Region<T>& region, Compute<T>* sums) {
  using A = Compute<T>;
  const int64_t side = p.output_size;
  const auto &rows = region.rows, &columns = region.columns;
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    memset(region.bins_of_row, 0, size_t(side * kBlock) * sizeof(A));
    for (int64_t row = 0; row < side; ++row)
      if (y >= rows[row].begin && y < rows[row].end)
        add_share<V>(rows[row].shares[y - rows[row].begin], region.bins + row * side * kBlock, region.bins_of_row,
                     side * kBlock);
    for (int64_t column = 0; column < side; ++column)
      for (int64_t x = columns[column].begin; x < columns[column].end; ++x)
        add_share<V>(columns[column].shares[x - columns[column].begin], region.bins_of_row + column * kBlock,
                     sums + (y * p.width + x) * kBlock, kBlock);
  }
}

// A task owns some channels of one image, and adds up their gradient in memory of its own.
template <typename T>
void roi_align_backward(const RoiProblem<T>& p, const T* grad_output, T* gradient, int64_t begin, int64_t end) {
  using A = Compute<T>;
  const int64_t bins = p.output_size * p.output_size, pixels = p.height * p.width;
  const int64_t blocks = (p.channels + kBlock - 1) / kBlock;
  Region<T> region(p);
  Buffer<A> memory;
  A* const sums = memory.at_least(pixels * kBlock);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / blocks, channel = task % blocks * kBlock;
    const int64_t n = p.channels - channel < kBlock ? p.channels - channel : kBlock;
    memset(sums, 0, size_t(pixels * kBlock) * sizeof(A));
    for (int64_t number = 0; number < p.count; ++number) {
      if (int64_t(p.rois[number * 5]) != image) continue;
      region.enter(number);
      const T* const from = grad_output + (number * p.channels + channel) * bins;
      for (int64_t c = 0; c < kBlock; ++c)
        for (int64_t bin = 0; bin < bins; ++bin)
          region.bins[bin * kBlock + c] = c < n ? widen(from[c * bins + bin]) : 0;
      spread<typename Path<T>::Vector>(p, region, sums);
    }
    T* const out = gradient + (image * p.channels + channel) * pixels;
    for (int64_t c = 0; c < n; ++c)
      for (int64_t pixel = 0; pixel < pixels; ++pixel) narrow(sums[pixel * kBlock + c], out[c * pixels + pixel]);
  }
}

}  // namespace detection_ops::CPU_PATH
