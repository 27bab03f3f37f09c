// The gradients of deformable attention, without atomics: a task owns one head of one image, and adds up the gradient
// of its pixels in memory of its own. So the result does not depend on the number of threads.
#pragma once

#include "attention.h"

namespace detection_ops::CPU_PATH {

// dot[corner][k] = sum over channels of the output's gradient times the pixel, 0 for one that does not exist; and the
// pixel's own gradient, `sums`, gets its share. Both are of `padded` channels, whole vectors.
template <class V, typename T>
ALWAYS_INLINE void visit_pixels(const AttentionProblem<T>& p, const Samples<Compute<T>>& samples, const T* value,
                                const Compute<T>* gradient, int64_t padded, Compute<T>* sums) {
  using A = Compute<T>;
  for (int64_t k = 0; k < p.points; ++k)
    for (int corner = 0; corner < 4; ++corner) {
      const int64_t place = samples.place(corner)[k];
      A& dot = samples.dot(corner)[k] = 0;
      if (place < 0) continue;
      const T* const pixel = value + place * p.heads * p.channels;
      A* const sum_of_pixel = sums + place * padded;
      const V share = V::splat(samples.share(corner)[k]);
      V products = V::splat(0);
      for (int64_t c = 0; c < padded; c += V::size) {
        const int64_t left = p.channels - c;
        const V g = V::load(gradient + c);
        products = fma(g, left < V::size ? V::load_first(pixel + c, int(left), 0) : V::load(pixel + c), products);
        fma(share, g, V::load(sum_of_pixel + c)).store(sum_of_pixel + c);
      }
      dot = sum(products);
    }
}

// The gradients of locations and weights of one unit from its dot products
template <class V, typename T>
ALWAYS_INLINE void point_gradients(const AttentionProblem<T>& p, const Samples<Compute<T>>& samples, T* locations,
                                   T* weights) {
  const V zero = V::splat(0), one = V::splat(1);
  for (int64_t k = 0; k < p.points; k += V::size) {
    const int n = int(p.points - k < V::size ? p.points - k : V::size);
    const V x = V::load(samples.x() + k), y = V::load(samples.y() + k), weight = V::load(samples.weight() + k);
    V dot[4];
    for (int corner = 0; corner < 4; ++corner) dot[corner] = V::load(samples.dot(corner) + k);
    const V top_slope = dot[1] - dot[0], bottom_slope = dot[3] - dot[2];
    const V top = fma(x, top_slope, dot[0]), bottom = fma(x, bottom_slope, dot[2]);
    const auto outside = equal(V::load(samples.inside() + k), zero);
    const V by_x = weight * V::load(p.width + k) * fma(one - y, top_slope, y * bottom_slope);
    const V by_y = weight * V::load(p.height + k) * (bottom - top);
    V::store_pairs(locations + 2 * k, n, select(outside, zero, by_x), select(outside, zero, by_y));
    fma(one - y, top, y * bottom).store_first(weights + k, n);
  }
}

template <typename T>
void attend_backward(const AttentionProblem<T>& p, const AttentionGradients<T>& gradients, int64_t begin, int64_t end) {
  using A = Compute<T>;
  using V = typename Path<T>::Vector;
  const Samples<A> samples(round_up(p.points, V::size));
  const int64_t padded = round_up(p.channels, V::size);
  Buffer<A> sum_memory, gradient_memory;
  A* const sums = sum_memory.at_least(p.positions * padded);
  A* const gradient = gradient_memory.at_least(padded);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / p.heads, head = task % p.heads;
    const int64_t first = (image * p.positions * p.heads + head) * p.channels;  // the head's channels in `value`
    memset(sums, 0, size_t(p.positions * padded) * sizeof(A));
    for (int64_t query = 0; query < p.queries; ++query) {
      const int64_t unit = (image * p.queries + query) * p.heads + head;
      locate<V>(p, unit, samples);
      for (int64_t c = 0; c < padded; c += V::size) {
        const int64_t left = p.channels - c;
        V::load_first(gradients.output + unit * p.channels + c, int(left < V::size ? left : V::size), 0)
            .store(gradient + c);
      }
      visit_pixels<V>(p, samples, p.value + first, gradient, padded, sums);
      point_gradients<V>(p, samples, gradients.locations + unit * p.points * 2, gradients.weights + unit * p.points);
    }
    for (int64_t position = 0; position < p.positions; ++position) {
      T* const out = gradients.value + first + position * p.heads * p.channels;
      for (int64_t c = 0; c < p.channels; c += V::size) {
        const int64_t left = p.channels - c;
        V::load(sums + position * padded + c).store_first(out + c, int(left < V::size ? left : V::size));
      }
    }
  }
}

}  // namespace detection_ops::CPU_PATH
