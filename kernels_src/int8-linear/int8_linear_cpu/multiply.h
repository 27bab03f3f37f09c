// Products of rows with packed weights; to be included last by a path's file, which defines Vector, Sums,
// store_rounded, and as kPanels how many panels are computed together.
#pragma once

#include <algorithm>
#include <utility>

#include "common/buffer.h"
#include "problem.h"

namespace int8_linear::CPU_PATH {

constexpr int64_t kBlock = 8 * kTile;  // rows that stay in the second-level cache from one product to the next

ALWAYS_INLINE int lanes_left(int64_t position, int64_t end) { return int(std::min<int64_t>(kLanes, end - position)); }

// The levels of numbers, as numbers. The constant comes second in max: so NaN becomes 0.
ALWAYS_INLINE Vector bounded(const Vector& v) { return min(max(v, Vector::splat(0)), Vector::splat(255)); }

template <typename T>
ALWAYS_INLINE Vector load(const T* p, int count) {
  return count == kLanes ? Vector::load(p) : Vector::load_first(p, count, 0);
}
template <typename T>
ALWAYS_INLINE void store(const Vector& v, T* p, int count) {
  count == kLanes ? v.store(p) : v.store_first(p, count);
}

// Rounds rows to levels, each to `stride` of them; those beyond the input meet weights of 0.
template <typename T>
void round_rows(const Layer& layer, const T* input, int64_t rows, int64_t stride, uint8_t* levels) {
  const Vector inverse = Vector::splat(1 / layer.levels.scale), zero = Vector::splat(float(layer.levels.zero_point));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < layer.inputs; c += kLanes) {
      const int count = lanes_left(c, layer.inputs);
      store_rounded(bounded(fma(load(input + r * layer.inputs + c, count), inverse, zero)), levels + r * stride + c,
                    count);
    }
}

// Calls f with 0, 1, ... N - 1 as constants: sums with constant indices stay in registers.
template <typename F, int... I>
ALWAYS_INLINE void each_of(std::integer_sequence<int, I...>, const F& f) {
  (f(std::integral_constant<int, I>()), ...);
}
template <int N, typename F>
ALWAYS_INLINE void each(const F& f) {
  each_of(std::make_integer_sequence<int, N>(), f);
}
#define ALWAYS __attribute__((always_inline))

// Some panels of outputs of one tile of rows; finish(row, panel, sums).
template <int Panels, typename F>
ALWAYS_INLINE void multiply_tile(const Layer& layer, const uint8_t* levels, int64_t stride, const int8_t* panels,
                                 F finish) {
  const int64_t quads = layer.quads(), panel_size = layer.panel_size();
  Sums sums[kTile * Panels];
  each<kTile * Panels>([&](auto i) ALWAYS {
    sums[i] = Sums::start(panels + i % Panels * panel_size, layer.levels.zero_point);
  });
  for (int64_t q = 0; q < quads; ++q) {
    typename Sums::Weights weights[Panels];
    each<Panels>([&](auto p) ALWAYS { weights[p] = Sums::weights(panels + p * panel_size + (q + 1) * kBytes); });
    each<kTile>([&](auto r) ALWAYS {
      const typename Sums::Quad quad = Sums::quad(levels + r * stride + q * kQuad);
      each<Panels>([&](auto p) ALWAYS { sums[r * Panels + p].add(quad, weights[p]); });
    });
  }
  each<kTile * Panels>([&](auto i) ALWAYS { finish(i / Panels, i % Panels, sums[i].numbers()); });
}

// The same for a number of panels that is known when it runs.
template <int Panels, typename F>
ALWAYS_INLINE void multiply_panels(const Layer& layer, const uint8_t* levels, int64_t stride, const int8_t* panels,
                                   int count, F finish) {
  if (count == Panels) return multiply_tile<Panels>(layer, levels, stride, panels, finish);
  if constexpr (Panels > 1) multiply_panels<Panels - 1>(layer, levels, stride, panels, count, finish);
}

// All outputs of a block of rows, which are padded to whole tiles; finish(row, output, count, numbers).
template <typename F>
ALWAYS_INLINE void multiply(const Layer& layer, const uint8_t* levels, int64_t stride, int64_t rows, F finish) {
  const int64_t panels = (layer.outputs + kLanes - 1) / kLanes;
  const Vector scale = Vector::splat(layer.levels.scale);
  for (int64_t panel = 0; panel < panels; panel += kPanels) {
    const int64_t output = panel * kLanes;
    const int width = int(std::min<int64_t>(kPanels, panels - panel));
    Vector factor[kPanels], bias[kPanels];
    for (int p = 0; p < width; ++p) {
      const int count = lanes_left(output + p * kLanes, layer.outputs);
      factor[p] = load(layer.weight_scale + output + p * kLanes, count) * scale;
      bias[p] = layer.bias ? load(layer.bias + output + p * kLanes, count) : Vector::splat(0);
    }
    for (int64_t row = 0; row < rows; row += kTile) {
      const int64_t left = rows - row;
      const auto finish_panel = [&](int r, int p, const Vector& sums) ALWAYS {
        if (r >= left) return;
        const int64_t first = output + p * kLanes;
        finish(row + r, first, lanes_left(first, layer.outputs), fma(sums, factor[p], bias[p]));
      };
      const uint8_t* const tile = levels + row * stride;
      const int8_t* const weights = layer.panels + panel * layer.panel_size();
      multiply_panels<kPanels>(layer, tile, stride, weights, width, finish_panel);
    }
  }
}

// GELU to 2e-4: x times a share of 1/2 + x p(x^2), which is fitted (see fused-layers, where it is exact enough for more
// than 8 bits).
ALWAYS_INLINE Vector gelu(const Vector& x) {
  constexpr float kRange = 3.9f;
  constexpr float kPolynomial[] = {2.6270884e-8f,  -1.7704663e-6f, 5.1236734e-5f, -8.4450707e-4f,
                                   8.9137647e-3f, -6.4869431e-2f, 3.9808558e-1f};
  const Vector bounded = max(Vector::splat(-kRange), x), inside = min(Vector::splat(kRange), bounded);
  const Vector square = inside * inside;
  Vector p = Vector::splat(kPolynomial[0]);
  for (int i = 1; i < 7; ++i) p = fma(p, square, Vector::splat(kPolynomial[i]));
  return bounded * fma(p, inside, Vector::splat(0.5f));
}

inline int64_t padded(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

template <typename T>
void linear(const Layer& layer, const T* input, T* output, int64_t begin, int64_t end) {
  const int64_t stride = padded(layer.inputs, kQuad);
  Buffer<uint8_t> buffer;
  uint8_t* const levels = buffer.at_least(std::min(kBlock, padded(end - begin, kTile)) * stride);
  for (int64_t row = begin; row < end; row += kBlock) {
    const int64_t rows = std::min(kBlock, end - row);
    round_rows(layer, input + row * layer.inputs, rows, stride, levels);
    multiply(layer, levels, stride, rows, [&](int64_t r, int64_t first, int count, const Vector& numbers) {
      store(numbers, output + (row + r) * layer.outputs + first, count);
    });
  }
}

template <typename T>
void feed_forward(const Layer& expansion, const Layer& projection, const T* input, T* output, int64_t begin,
                  int64_t end) {
  const int64_t stride = padded(expansion.inputs, kQuad), hidden_stride = padded(projection.inputs, kQuad);
  const int64_t tiles = std::min(kBlock, padded(end - begin, kTile));
  Buffer<uint8_t> buffer, hidden_buffer;
  uint8_t *const levels = buffer.at_least(tiles * stride), *const hidden = hidden_buffer.at_least(tiles * hidden_stride);
  const Vector inverse = Vector::splat(1 / projection.levels.scale);
  const Vector zero = Vector::splat(float(projection.levels.zero_point));
  for (int64_t row = begin; row < end; row += kBlock) {
    const int64_t rows = std::min(kBlock, end - row);
    round_rows(expansion, input + row * expansion.inputs, rows, stride, levels);
    multiply(expansion, levels, stride, rows, [&](int64_t r, int64_t first, int count, const Vector& numbers) {
      store_rounded(bounded(fma(gelu(numbers), inverse, zero)), hidden + r * hidden_stride + first, count);
    });
    multiply(projection, hidden, hidden_stride, rows, [&](int64_t r, int64_t first, int count, const Vector& numbers) {
      store(numbers, output + (row + r) * projection.outputs + first, count);
    });
  }
}

#define INSTANTIATE(T)                                                            \
  template void linear<T>(const Layer&, const T*, T*, int64_t, int64_t);          \
  template void feed_forward<T>(const Layer&, const Layer&, const T*, T*, int64_t, int64_t);
INSTANTIATE(float)
INSTANTIATE(BFloat16)
#undef INSTANTIATE

}  // namespace int8_linear::CPU_PATH
