// The three linear maps around the products, for one vector of channels at a time. In one dimension, with g the weights
// and d the pixels: 1/2 (2 g0, g0 + g1 + g2, g0 - g1 + g2, 2 g2), (d0 - d2, d1 + d2, d2 - d1, d1 - d3), and back
// (m0 + m1 + m2, m1 - m2 - m3).
#pragma once

#include "problem.h"

namespace winograd_conv::CPU_PATH {

using V = Path::Vector;

ALWAYS_INLINE V load(const float* p, int count) { return count == V::size ? V::load(p) : V::load_first(p, count, 0); }
ALWAYS_INLINE void store(const V& v, float* p, int count) {
  count == V::size ? v.store(p) : v.store_first(p, count);
}

// Calls f(position, count) for the vectors of `channels`; only the last may be short.
template <typename F>
ALWAYS_INLINE void each_vector(int64_t channels, F f) {
  int64_t c = 0;
  for (; c + V::size <= channels; c += V::size) f(c, V::size);
  if (c < channels) f(c, int(channels - c));
}

// (3, 3) -> (4, 4)
ALWAYS_INLINE void transform_weight(const V (&taps)[3][3], V (&points)[4][4]) {
  const V half = V::splat(0.5f);
  const auto along = [&](const V& a, const V& b, const V& c, auto put) {
    const V ends = (a + c) * half, middle = b * half;
    put(0, a), put(1, ends + middle), put(2, ends - middle), put(3, c);
  };
  V rows[4][3];
  for (int x = 0; x < 3; ++x)
    along(taps[0][x], taps[1][x], taps[2][x], [&](int y, const V& v) { rows[y][x] = v; });
  for (int y = 0; y < 4; ++y)
    along(rows[y][0], rows[y][1], rows[y][2], [&](int x, const V& v) { points[y][x] = v; });
}

// (4, 4) -> (4, 4)
ALWAYS_INLINE void transform_pixels(V (&d)[4][4]) {
  const auto along = [](V& a, V& b, V& c, V& d) {
    const V first = a - c, second = b + c, third = c - b, fourth = b - d;
    a = first, b = second, c = third, d = fourth;
  };
  for (int x = 0; x < 4; ++x) along(d[0][x], d[1][x], d[2][x], d[3][x]);
  for (int y = 0; y < 4; ++y) along(d[y][0], d[y][1], d[y][2], d[y][3]);
}

// (4, 4) -> (2, 2)
ALWAYS_INLINE void transform_products(const V (&m)[4][4], V (&out)[2][2]) {
  V rows[2][4];
  for (int x = 0; x < 4; ++x) {
    rows[0][x] = (m[0][x] + m[1][x]) + m[2][x];
    rows[1][x] = (m[1][x] - m[2][x]) - m[3][x];
  }
  for (int y = 0; y < 2; ++y) {
    out[y][0] = (rows[y][0] + rows[y][1]) + rows[y][2];
    out[y][1] = (rows[y][1] - rows[y][2]) - rows[y][3];
  }
}

}  // namespace winograd_conv::CPU_PATH
