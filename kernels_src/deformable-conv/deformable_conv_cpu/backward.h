// The backward pass, without atomics: a task owns some groups of one image, and adds the gradient of their pixels up in
// memory of its own. So the result does not depend on the number of threads.
#pragma once

#include "forward.h"

namespace deformable_conv::CPU_PATH {

constexpr int kMostGroups = 4;  // of a task: enough to keep dependent additions apart, few enough to stay in the cache

// dot[corner][k] = sum over channels of the output's gradient times the corner pixel of sample k
template <class V, int kVectors, typename T>
ALWAYS_INLINE void corner_dots(const Samples<Compute<T>>& samples, int points, const Steps& steps, const T* value,
                               const Compute<T>* gradient, int64_t channels) {
  using A = Compute<T>;
  constexpr int kTogether = V::size / 4;  // points whose 4 dot products fill a vector
  const int64_t vectors = kVectors ? kVectors : channels / V::size;
  const int rest = kVectors ? 0 : int(channels % V::size);
  const auto products = [&](int k, V(&rows)[4]) __attribute__((always_inline)) {
    const T* pixel = value + samples.cell()[k] * steps.pixel;
    const T* corners[4] = {pixel, pixel + steps.right, pixel + steps.below, pixel + steps.below + steps.right};
    for (V& row : rows) row = V::splat(0);
#pragma GCC unroll 4
    for (int64_t v = 0; v < vectors; ++v) {
      const V g = V::load(gradient + v * V::size);
      for (int corner = 0; corner < 4; ++corner)
        rows[corner] = fma(g, V::load(corners[corner] + v * V::size), rows[corner]);
    }
    if (rest) {
      const V g = V::load(gradient + vectors * V::size);
      for (int corner = 0; corner < 4; ++corner)
        rows[corner] = fma(g, V::load_first(corners[corner] + vectors * V::size, rest, 0), rows[corner]);
    }
  };
  int k = 0;
  for (; k + kTogether <= points; k += kTogether) {
    V rows[V::size];
#pragma GCC unroll 4
    for (int i = 0; i < kTogether; ++i) {
      V of_point[4];
      products(k + i, of_point);
      for (int corner = 0; corner < 4; ++corner) rows[corner * kTogether + i] = of_point[corner];
    }
    alignas(64) A sums[V::size];
    V::sums(rows).store(sums);
    for (int corner = 0; corner < 4; ++corner)
      memcpy(samples.row(samples.kDot + corner) + k, sums + corner * kTogether, kTogether * sizeof(A));
  }
  for (; k < points; ++k) {
    V of_point[4];
    products(k, of_point);
    for (int corner = 0; corner < 4; ++corner) samples.row(samples.kDot + corner)[k] = sum(of_point[corner]);
  }
}

// Add share * gradient to the pixels of sample k.
template <class V, int kVectors, typename A>
ALWAYS_INLINE void scatter(const Samples<A>& samples, int k, const Steps& steps, A* sums, const A* gradient,
                           int64_t vectors) {
  A* pixel = sums + samples.cell()[k] * steps.pixel;
  A* corners[4] = {pixel, pixel + steps.right, pixel + steps.below, pixel + steps.below + steps.right};
  const V share[4] = {V::splat(samples.share(0)[k]), V::splat(samples.share(1)[k]), V::splat(samples.share(2)[k]),
                      V::splat(samples.share(3)[k])};
#pragma GCC unroll 4
  for (int64_t v = 0; v < (kVectors ? kVectors : vectors); ++v) {
    const V g = V::load(gradient + v * V::size);
    for (int corner = 0; corner < 4; ++corner) {
      A* at = corners[corner] + v * V::size;
      fma(share[corner], g, V::load(at)).store(at);
    }
  }
}

// As scatter, for a gradient that is not finite: only to pixels that the sample really has.
template <typename A>
__attribute__((noinline)) void scatter_exactly(const Samples<A>& samples, int k, const Steps& steps, A* sums,
                                               const A* gradient, int64_t channels) {
  for (int corner = 0; corner < 4; ++corner) {
    const A slope_x = samples.row(samples.kSlope + corner % 2)[k],
            slope_y = samples.row(samples.kSlope + 2 + corner / 2)[k];
    if (slope_x == 0 || slope_y == 0) continue;
    A* pixel = sums + samples.cell()[k] * steps.pixel + corner % 2 * steps.right + corner / 2 * steps.below;
    for (int64_t c = 0; c < channels; ++c) pixel[c] += samples.share(corner)[k] * gradient[c];
  }
}

// Gradients of offset and weight of one unit from its dot products.
template <class V, typename T>
ALWAYS_INLINE void point_gradients(const Samples<Compute<T>>& samples, int points, bool softmax, V scale, T* offset,
                                   T* weight) {
  using A = Compute<T>;
  const V zero = V::splat(0);
  A weighted_total = 0;  // sum of weight times its gradient, which the softmax subtracts
  for (int k = 0; k < points; k += V::size) {
    const int n = points - k < V::size ? points - k : V::size;
    V slope[4], hat[4], dot[4];
    for (int i = 0; i < 4; ++i) {
      slope[i] = V::load(samples.row(samples.kSlope + i) + k);
      hat[i] = V::load(samples.row(samples.kHat + i) + k);
    }
    for (int corner = 0; corner < 4; ++corner) {
      const auto missing = equal(slope[corner % 2], zero) | equal(slope[2 + corner / 2], zero);
      dot[corner] = select(missing, zero, V::load(samples.row(samples.kDot + corner) + k));
    }
    const V top = fma(hat[0], dot[0], hat[1] * dot[1]), bottom = fma(hat[0], dot[2], hat[1] * dot[3]);
    const V top_slope = fma(slope[0], dot[0], slope[1] * dot[1]),
            bottom_slope = fma(slope[0], dot[2], slope[1] * dot[3]);
    const auto nowhere =
        (equal(slope[0], zero) & equal(slope[1], zero)) | (equal(slope[2], zero) & equal(slope[3], zero));
    const V point_weight = V::load(samples.row(samples.kWeight) + k),
            factor = select(nowhere, zero, point_weight * scale);
    const V x = factor * fma(hat[2], top_slope, hat[3] * bottom_slope),
            y = factor * fma(slope[2], top, slope[3] * bottom);
    V::store_pairs(offset + 2 * k, n, x, y);
    const V of_weight = fma(hat[2], top, hat[3] * bottom);
    if (softmax) {
      of_weight.store(samples.row(samples.kDot) + k);
      weighted_total += sum(point_weight * of_weight);
    } else {
      of_weight.store_first(weight + k, n);
    }
  }
  if (!softmax) return;
  for (int k = 0; k < points; k += V::size) {
    const V point_weight = V::load(samples.row(samples.kWeight) + k),
            of_weight = V::load(samples.row(samples.kDot) + k);
    (point_weight * (of_weight - V::splat(weighted_total)))
        .store_first(weight + k, points - k < V::size ? points - k : V::size);
  }
}

// The gradient of one group's output, as numbers padded with zeros to whole vectors. Returns whether all are finite.
template <class V, typename T>
ALWAYS_INLINE bool widen_gradient(const T* gradient, int64_t channels, Compute<T>* out) {
  V all = V::splat(0);
  for (int64_t c = 0; c < channels; c += V::size) {
    const V g = c + V::size <= channels ? V::load(gradient + c) : V::load_first(gradient + c, int(channels - c), 0);
    g.store(out + c);
    all = all + g * V::splat(0);  // NaN for an infinity
  }
  return !has_nan(all);
}

template <class V, int kVectors, int kPoints, typename T>
void backward_task(const Problem<T>& p, const Gradients<T>& gradients, int64_t image, int64_t group, int groups,
                   Compute<T>* sums, Compute<T>* workspace) {
  using A = Compute<T>;
  const Sampler<T, V, kPoints> sampler(p);
  const int points = sampler.points();
  const int64_t capacity = sampler.capacity(), padded = round_up(p.channels, V::size), vectors = padded / V::size;
  const Steps steps(p);
  Steps own(p);  // in sums, which holds `groups` groups for each pixel
  own.pixel = groups * padded;
  own.right = p.width > 1 ? own.pixel : 0;
  own.below = p.height > 1 ? p.width * own.pixel : 0;
  memset(sums, 0, size_t(p.height * p.width * own.pixel) * sizeof(A));

  Samples<A> samples[kMostGroups];
  A* gradient[kMostGroups];
  for (int g = 0; g < groups; ++g) {
    samples[g] = {workspace + g * (capacity * Samples<A>::kRows + padded), capacity};
    memset(samples[g].memory, 0, size_t(capacity * Samples<A>::kRows) * sizeof(A));
    gradient[g] = samples[g].memory + capacity * Samples<A>::kRows;
  }
  const int64_t pixels = p.out_height * p.out_width;
  for (int64_t pixel = image * pixels; pixel < (image + 1) * pixels; ++pixel) {
    const int64_t unit = pixel * p.groups + group;
    Units<T> at(p, pixel, group);
    bool all_finite = true, finite[kMostGroups];
    for (int g = 0; g < groups; ++g, at.next()) {
      sampler.locate_with_slopes(at, samples[g]);
      finite[g] = widen_gradient<V>(gradients.output + (unit + g) * p.channels, p.channels, gradient[g]);
      all_finite &= finite[g];
    }
    const T* value = p.value + image * p.image_stride + group * p.channels;
    for (int g = 0; g < groups; ++g)
      corner_dots<V, kVectors>(samples[g], points, steps, value + g * p.channels, gradient[g], p.channels);
    // neighbouring points of a group often meet in a pixel: the other groups' additions fill the wait
    if (all_finite) {
      for (int k = 0; k < points; ++k)
        for (int g = 0; g < groups; ++g)
          scatter<V, kVectors>(samples[g], k, own, sums + g * padded, gradient[g], vectors);
    } else {
      for (int k = 0; k < points; ++k)
        for (int g = 0; g < groups; ++g)
          if (finite[g])
            scatter<V, kVectors>(samples[g], k, own, sums + g * padded, gradient[g], vectors);
          else
            scatter_exactly(samples[g], k, own, sums + g * padded, gradient[g], p.channels);
    }
    for (int g = 0; g < groups; ++g)
      point_gradients(samples[g], points, p.softmax, sampler.scale, gradients.offset + (unit + g) * points * 2,
                      gradients.weight + (unit + g) * points);
  }

  for (int64_t pixel = 0; pixel < p.height * p.width; ++pixel)
    for (int g = 0; g < groups; ++g) {
      T* out = gradients.value + ((image * p.height * p.width + pixel) * p.groups + group + g) * p.channels;
      const A* total = sums + pixel * own.pixel + g * padded;
      for (int64_t c = 0; c < p.channels; c += V::size) {
        const int64_t left = p.channels - c;
        V::load(total + c).store_first(out + c, int(left < V::size ? left : V::size));
      }
    }
}

template <int kChannels, int kPoints, typename T>
void backward_tasks(const Problem<T>& p, const Gradients<T>& gradients, int64_t begin, int64_t end) {
  using V = typename Path<T>::Vector;
  using A = Compute<T>;
  const int64_t padded = round_up(p.channels, V::size), capacity = round_up(p.points, V::size);
  Buffer<A> sum_buffer, workspace_buffer;
  A* const sums = sum_buffer.at_least(p.height * p.width * gradients.group_block * padded);
  A* const workspace = workspace_buffer.at_least(kMostGroups * (capacity * Samples<A>::kRows + padded));
  const int64_t blocks = (p.groups + gradients.group_block - 1) / gradients.group_block;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t group = task % blocks * gradients.group_block, left = p.groups - group;
    backward_task<V, kChannels / V::size, kPoints>(p, gradients, task / blocks, group,
                                                   int(left < gradients.group_block ? left : gradients.group_block),
                                                   sums, workspace);
  }
}

template <typename T>
void backward(const Problem<T>& p, const Gradients<T>& gradients, int64_t begin, int64_t end) {
  if constexpr (Path<T>::kSpecialised) {
    if (p.points == 9) {  // 3x3
      switch (p.channels) {
        case 16:
          return backward_tasks<16, 9>(p, gradients, begin, end);
        case 32:
          return backward_tasks<32, 9>(p, gradients, begin, end);
        case 64:
          return backward_tasks<64, 9>(p, gradients, begin, end);
      }
    }
  }
  backward_tasks<0, 0>(p, gradients, begin, end);
}

#define INSTANTIATE(T)                                               \
  template void forward<T>(const Problem<T>&, T*, int64_t, int64_t); \
  template void backward<T>(const Problem<T>&, const Gradients<T>&, int64_t, int64_t);
FOR_EACH_TYPE(INSTANTIATE)
#undef INSTANTIATE

}  // namespace deformable_conv::CPU_PATH
