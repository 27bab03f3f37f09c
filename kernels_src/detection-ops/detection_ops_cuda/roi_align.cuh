// RoIAlign: a thread for each bin and channel.
#pragma once

#include "problem.cuh"

namespace detection_ops {

// The samples of one bin on one axis; the centre of pixel i lies at i.
template <typename A>
class Samples {
  A start_, side_;

 public:
  int64_t count, begin, end;  // how many there are, and which of them may lie in the map

  __device__ Samples(A first_edge, A last_edge, int64_t bins, int64_t bin, int64_t pixels) {
    side_ = (last_edge - first_edge) / A(bins);
    start_ = first_edge + A(bin) * side_;
    count = side_ > 0 && side_ < A(1e15) ? int64_t(ceil(side_)) : 0;
    // a region may be far larger than the map, so not all samples are looked at; they are 1/2 to 1 pixel apart
    const double before = -4 - double(start_), after = 2 * (double(pixels) - double(start_) + 4);
    begin = within(before), end = within(after);
  }
  __device__ int64_t within(double number) const {
    return number < double(count) ? int64_t(number > 0 ? number : 0) : count;
  }
  __device__ A operator[](int64_t sample) const { return start_ + (A(sample) + A(0.5)) * side_ / A(count); }
};

// A sample on one axis: two pixels, which may be the same, and the share of each
template <typename A>
struct Place {
  bool inside;
  int64_t pixel[2];
  A share[2];

  __device__ Place(A position, int64_t pixels) {
    inside = position >= -1 && position <= A(pixels);
    if (!inside) return;
    pixel[0] = position < 0 ? 0 : position < A(pixels - 1) ? int64_t(position) : pixels - 1;
    pixel[1] = pixel[0] < pixels - 1 ? pixel[0] + 1 : pixel[0];
    share[1] = position < 0 || pixel[0] == pixels - 1 ? 0 : position - A(pixel[0]);
    share[0] = 1 - share[1];
  }
};

// Calls visit(offset of a pixel in the image's features of one channel, its share of the bin) for each that has one.
// `bin` counts regions, channels, rows and columns of bins.
template <typename T, typename F>
__device__ void for_pixels(const RoiProblem<T>& p, int64_t bin, F visit) {
  using A = Compute<T>;
  const int64_t side = p.output_size, column = bin % side, row = bin / side % side;
  const A* const roi = p.rois + bin / side / side / p.channels * 5;
  if (!(roi[0] >= 0 && roi[0] < A(p.images))) return;
  const auto edge = [&](int i) { return roi[i] * p.spatial_scale - A(0.5); };
  const Samples<A> across(edge(1), edge(3), side, column, p.width), down(edge(2), edge(4), side, row, p.height);
  const int64_t channel = bin / side / side % p.channels;
  const int64_t first = int64_t(roi[0]) * p.strides.image + channel * p.strides.channel;
  for (int64_t i = down.begin; i < down.end; ++i) {
    const Place<A> y(down[i], p.height);
    for (int64_t j = across.begin; y.inside && j < across.end; ++j) {
      const Place<A> x(across[j], p.width);
      if (!x.inside) continue;
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        const A share = x.share[corner % 2] * y.share[corner / 2];
        if (share > 0)  // else the pixel may be no neighbour of the sample, and not a number
          visit(first + y.pixel[corner / 2] * p.strides.row + x.pixel[corner % 2] * p.strides.column,
                share / (A(down.count) * A(across.count)));
      }
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) roi_align_kernel(RoiProblem<T> p, const T* features, T* output) {
  using A = Compute<T>;
  const int64_t bin = thread_number();
  if (bin >= p.count * p.channels * p.output_size * p.output_size) return;
  A total = 0;
  for_pixels(p, bin, [&](int64_t pixel, A share) { total = fma(share, widen(features[pixel]), total); });
  narrow(total, output[bin]);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    roi_align_backward_kernel(RoiProblem<T> p, const T* grad_output, Compute<T>* gradient) {
  using A = Compute<T>;
  const int64_t bin = thread_number();
  if (bin >= p.count * p.channels * p.output_size * p.output_size) return;
  const A of_bin = widen(grad_output[bin]);
  for_pixels(p, bin, [&](int64_t pixel, A share) { atomicAdd(gradient + pixel, share * of_bin); });
}

}  // namespace detection_ops
