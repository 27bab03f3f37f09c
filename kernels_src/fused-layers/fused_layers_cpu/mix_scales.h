// The mixed heads of SMT's modulation and their aggregation up to its GELU, for tiles of pixels and a block of channels.
//
// A head's part of the input is laid into a buffer with zeros around, so that its kernel knows no borders. What the
// heads give for a pixel stays in the first-level caches until it is mixed.
#pragma once

#include <algorithm>
#include <cmath>

#include "common/buffer.h"
#include "gelu.h"

namespace fused_layers::CPU_PATH {

// The parameters as they are needed: rows of a number for each channel of a head, and for those that fill the last
// block. The taps of the heads, (kOutputs, kHeads) factors, kOutputs sums; BatchNorm and the biases of the heads are part
// of these.
template <typename A>
struct Folded {
  static constexpr int kHeads = Mixing<A>::kHeads, kOutputs = Mixing<A>::kOutputs;
  int64_t stride;
  A* numbers;
  static constexpr int taps(int head) { return Mixing<A>::kSizes[head] * Mixing<A>::kSizes[head]; }
  ALWAYS_INLINE A* tap(int head, int i) const {
    for (int h = 0; h < head; ++h) i += taps(h);
    return numbers + i * stride;
  }
  ALWAYS_INLINE A* factor(int output, int head) const { return tap(kHeads, output * kHeads + head); }
  ALWAYS_INLINE A* sum(int output) const { return tap(kHeads, kOutputs * kHeads + output); }
};

template <typename T>
void fold(const Mixing<T>& mixing, Compute<T>* numbers) {
  constexpr int kHeads = Mixing<T>::kHeads, kOutputs = Mixing<T>::kOutputs;
  const Folded<Compute<T>> folded{mixing.blocks * Mixing<T>::kBlock, numbers};
  for (int h = 0; h < kHeads; ++h) {
    const int taps = folded.taps(h);
    for (int i = 0; i < taps; ++i)
      for (int64_t c = 0; c < mixing.channels; ++c) folded.tap(h, i)[c] = widen(mixing.kernels[h][c * taps + i]);
  }
  for (int o = 0; o < kOutputs; ++o) {
    for (int64_t c = 0; c < mixing.channels; ++c) {
      const int64_t place = c * kOutputs + o;
      const double scale = widen(mixing.weight[place]) / std::sqrt(widen(mixing.variance[place]) + mixing.eps);
      double sum = double(widen(mixing.expand_bias[place])) - widen(mixing.mean[place]);
      for (int h = 0; h < kHeads; ++h) {
        const double factor = widen(mixing.expand[place * kHeads + h]);
        folded.factor(o, h)[c] = Compute<T>(factor * scale);
        sum += factor * widen(mixing.kernel_biases[h][c]);
      }
      folded.sum(o)[c] = Compute<T>(sum * scale + widen(mixing.bias[place]));
    }
  }
}

// Some pixels of an image.
struct Tile {
  int64_t image, top, bottom, left, right;
};

// Lays a head's channels [channel, channel + count) of a tile and of `around` pixels about it into `padded`, where a row
// has `columns` pixels.
template <typename T>
ALWAYS_INLINE void lay(const Mixing<T>& mixing, const Tile& tile, int64_t around, int64_t columns, int64_t channel,
                       int count, Compute<T>* padded) {
  using V = Vector<T>;
  const int64_t pixel_stride = Mixing<T>::kHeads * mixing.channels;
  const int64_t first = std::max<int64_t>(tile.left - around, 0);
  const int64_t last = std::min(tile.left - around + columns, mixing.width);
  for (int64_t y = tile.top - around; y < tile.bottom + around; ++y, padded += columns * V::size) {
    if (y < 0 || y >= mixing.height) {
      std::fill_n(padded, columns * V::size, Compute<T>(0));
      continue;
    }
    const int64_t before = first - (tile.left - around);
    std::fill_n(padded, before * V::size, Compute<T>(0));
    const T* in = mixing.input + ((tile.image * mixing.height + y) * mixing.width + first) * pixel_stride + channel;
    for (int64_t x = 0; x < last - first; ++x, in += pixel_stride)
      load<V>(in, count).store(padded + (before + x) * V::size);
    const int64_t filled = before + last - first;
    std::fill_n(padded + filled * V::size, (columns - filled) * V::size, Compute<T>(0));
  }
}

// Some neighbouring outputs of one head, side by side in registers.
template <int kSize, int kPixels, typename V, typename A>
ALWAYS_INLINE void convolve_pixels(const A* padded, int64_t columns, const A* taps, int64_t tap_stride, A* out) {
  V sums[kPixels];
#pragma GCC unroll 16
  for (int i = 0; i < kPixels; ++i) sums[i] = V::splat(0);
  for (int y = 0; y < kSize; ++y, padded += columns * V::size) {
    for (int x = 0; x < kSize; ++x, taps += tap_stride) {
      const V tap = V::load(taps);
#pragma GCC unroll 16
      for (int i = 0; i < kPixels; ++i) sums[i] = fma(V::load(padded + (x + i) * V::size), tap, sums[i]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kPixels; ++i) sums[i].store(out + i * V::size);
}

constexpr int kMany = 14, kFew = 7;  // pixels side by side; the maps of a 224-pixel image are multiples of these

inline int64_t whole_steps(int64_t pixels) { return (pixels + kFew - 1) / kFew * kFew; }

// A head's outputs for a tile: rows of whole_steps(width of the tile) pixels.
template <int kHead, typename T>
void convolve_head(const Mixing<T>& mixing, const Folded<const Compute<T>>& folded, const Tile& tile, int64_t channel, int count,
                   Compute<T>* padded, Compute<T>* out) {
  using V = Vector<T>;
  constexpr int kSize = Mixing<T>::kSizes[kHead], kAround = kSize / 2;
  const int64_t steps = whole_steps(tile.right - tile.left), columns = steps + 2 * kAround;
  lay(mixing, tile, kAround, columns, kHead * mixing.channels + channel, count, padded);
  const Compute<T>* const taps = folded.tap(kHead, 0) + channel;
  for (int64_t y = 0; y < tile.bottom - tile.top; ++y, padded += columns * V::size, out += steps * V::size) {
    int64_t x = 0;
    for (; x + kMany <= steps; x += kMany)
      convolve_pixels<kSize, kMany, V>(padded + x * V::size, columns, taps, folded.stride, out + x * V::size);
    if (x < steps)
      convolve_pixels<kSize, kFew, V>(padded + x * V::size, columns, taps, folded.stride, out + x * V::size);
  }
}

// Stores v[0][0] v[1][0] ... v[7][0] v[0][1] ..., `count` of each vector: each step lays two vectors in turns.
template <typename T, int N>
ALWAYS_INLINE void store_in_turns(const Vector<T> (&values)[N], int count, T* out) {
  using V = Vector<T>;
  using A = Compute<T>;
  A first[N * V::size], second[N * V::size];
  const auto take_turns = [](const V& a, const V& b, auto* to) { V::store_pairs(to, V::size, a, b); };
  for (int i = 0; i < N / 2; ++i) take_turns(values[i], values[i + N / 2], first + 2 * i * V::size);
  A *from = first, *to = second;
  for (int laid = 2; 2 * laid < N; laid *= 2, std::swap(from, to))
    for (int i = 0; i < N / 2; ++i)
      take_turns(V::load(from + i * V::size), V::load(from + (i + N / 2) * V::size), to + 2 * i * V::size);
  for (int i = 0; i < N / 2; ++i) {
    const int left = std::min(V::size, (count * N - 2 * i * V::size) / 2);
    if (left > 0) V::store_pairs(out + 2 * i * V::size, left, V::load(from + i * V::size), V::load(from + (i + N / 2) * V::size));
  }
}

template <typename T>
ALWAYS_INLINE void mix_pixel(const Folded<const Compute<T>>& folded, const Compute<T>* heads, int64_t head_stride, int64_t channel,
                             int count, T* out) {
  using V = Vector<T>;
  constexpr int kHeads = Mixing<T>::kHeads, kOutputs = Mixing<T>::kOutputs;
  V head[kHeads], mixed[kOutputs];
  for (int h = 0; h < kHeads; ++h) head[h] = V::load(heads + h * head_stride);
  for (int o = 0; o < kOutputs; ++o) {
    V sum = V::load(folded.sum(o) + channel);
    for (int h = 0; h < kHeads; ++h) sum = fma(head[h], V::load(folded.factor(o, h) + channel), sum);
    mixed[o] = gelu_of<T>(sum);
  }
  store_in_turns<T>(mixed, count, out);
}

template <typename T>
void mix_scales(const Mixing<T>& mixing, const Compute<T>* numbers, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  using A = Compute<T>;
  constexpr int kHeads = Mixing<T>::kHeads, kOutputs = Mixing<T>::kOutputs;
  constexpr int64_t kRows = Mixing<T>::kRows, kColumns = Mixing<T>::kColumns, kBlock = Mixing<T>::kBlock;
  constexpr int kAround = Mixing<T>::kSizes[kHeads - 1] / 2;
  const Folded<const A> folded{mixing.blocks * kBlock, numbers};
  const int64_t head_size = kRows * kColumns * V::size;
  Buffer<A> buffer;
  A* const heads = buffer.at_least(kHeads * head_size + (kRows + 2 * kAround) * (kColumns + 2 * kAround) * V::size);
  A* const padded = heads + kHeads * head_size;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t block = task % mixing.blocks, place = task / mixing.blocks;
    const int64_t left = place % mixing.across * kColumns, top = place / mixing.across % mixing.down * kRows;
    const Tile tile{place / mixing.across / mixing.down, top, std::min(top + kRows, mixing.height), left,
                    std::min(left + kColumns, mixing.width)};
    const int64_t steps = whole_steps(tile.right - tile.left);
    each_vector<V>(std::min(kBlock, mixing.channels - block * kBlock), [&](int64_t c, int count) {
      const int64_t channel = block * kBlock + c;
      convolve_head<0>(mixing, folded, tile, channel, count, padded, heads);
      convolve_head<1>(mixing, folded, tile, channel, count, padded, heads + head_size);
      convolve_head<2>(mixing, folded, tile, channel, count, padded, heads + 2 * head_size);
      convolve_head<3>(mixing, folded, tile, channel, count, padded, heads + 3 * head_size);
      for (int64_t y = tile.top; y < tile.bottom; ++y) {
        const A* pixel = heads + (y - tile.top) * steps * V::size;
        T* out = output + (((tile.image * mixing.height + y) * mixing.width + tile.left) * mixing.channels + channel) * kOutputs;
        for (int64_t x = tile.left; x < tile.right; ++x, pixel += V::size, out += mixing.channels * kOutputs)
          mix_pixel(folded, pixel, head_size, channel, count, out);
      }
    });
  }
}

}  // namespace fused_layers::CPU_PATH
