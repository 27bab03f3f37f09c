// The mixed heads of SMT's modulation and their aggregation up to its GELU, for windows of pixels and a block of channels.
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
struct Window {
  int64_t image, top, bottom, left, right;
};

// Lays a head's channels [channel, channel + count) of a window and of `around` pixels about it into `padded`, where a row
// has `columns` pixels.
template <typename T>
ALWAYS_INLINE void lay(const Mixing<T>& mixing, const Window& window, int64_t around, int64_t columns, int64_t channel,
                       int count, Compute<T>* padded) {
  using V = Vector<T>;
  const int64_t pixel_stride = Mixing<T>::kHeads * mixing.channels;
  const int64_t first = std::max<int64_t>(window.left - around, 0);
  const int64_t last = std::min(window.left - around + columns, mixing.width);
  for (int64_t y = window.top - around; y < window.bottom + around; ++y, padded += columns * V::size) {
    if (y < 0 || y >= mixing.height) {
      std::fill_n(padded, columns * V::size, Compute<T>(0));
      continue;
    }
    const int64_t before = first - (window.left - around);
    std::fill_n(padded, before * V::size, Compute<T>(0));
    const T* in = mixing.input + ((window.image * mixing.height + y) * mixing.width + first) * pixel_stride + channel;
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

// A head's outputs for a window: rows of whole_steps(width of the window) pixels.
template <int kHead, typename T>
void convolve_head(const Mixing<T>& mixing, const Folded<const Compute<T>>& folded, const Window& window, int64_t channel, int count,
                   Compute<T>* padded, Compute<T>* out) {
  using V = Vector<T>;
  constexpr int kSize = Mixing<T>::kSizes[kHead], kAround = kSize / 2;
  const int64_t steps = whole_steps(window.right - window.left), columns = steps + 2 * kAround;
  lay(mixing, window, kAround, columns, kHead * mixing.channels + channel, count, padded);
  const Compute<T>* const taps = folded.tap(kHead, 0) + channel;
  for (int64_t y = 0; y < window.bottom - window.top; ++y, padded += columns * V::size, out += steps * V::size) {
    int64_t x = 0;
    for (; x + kMany <= steps; x += kMany)
      convolve_pixels<kSize, kMany, V>(padded + x * V::size, columns, taps, folded.stride, out + x * V::size);
    if (x < steps)
      convolve_pixels<kSize, kFew, V>(padded + x * V::size, columns, taps, folded.stride, out + x * V::size);
  }
}

// a[0] b[0] a[1] b[1] ..., in two vectors.
template <class V>
ALWAYS_INLINE void take_turns(const V& a, const V& b, V& first, V& second) {
#ifdef __AVX512F__
  if constexpr (sizeof(typename V::Scalar) == sizeof(float)) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    first = {_mm512_permutex2var_ps(a.v, low, b.v)};
    second = {_mm512_permutex2var_ps(a.v, _mm512_add_epi32(low, _mm512_set1_epi32(8)), b.v)};
    return;
  }
#endif
  typename V::Scalar both[2 * V::size];
  V::store_pairs(both, V::size, a, b);
  first = V::load(both), second = V::load(both + V::size);
}

// Stores v[0][0] v[1][0] ... v[N - 1][0] v[0][1] ..., `count` numbers of each vector; N is a power of two.
template <typename T, class V, int N>
ALWAYS_INLINE void store_in_turns(V (&values)[N], int count, T* out) {
#pragma GCC unroll 4
  for (int rounds = 1; rounds < N; rounds *= 2) {
    V laid[N];
#pragma GCC unroll 8
    for (int i = 0; i < N / 2; ++i) take_turns(values[i], values[i + N / 2], laid[2 * i], laid[2 * i + 1]);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) values[i] = laid[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i)
    if (const int left = count * N - i * V::size; left > 0) store(values[i], out + i * V::size, std::min(left, V::size));
}

template <typename T>
ALWAYS_INLINE void mix_pixel(const Folded<const Compute<T>>& folded, const Gelu<T>& gelu_of, const Compute<T>* heads,
                             int64_t head_stride, int64_t channel, int count, T* out) {
  using V = Vector<T>;
  constexpr int kHeads = Mixing<T>::kHeads, kOutputs = Mixing<T>::kOutputs;
  V head[kHeads], mixed[kOutputs];
  for (int h = 0; h < kHeads; ++h) head[h] = V::load(heads + h * head_stride);
  for (int o = 0; o < kOutputs; ++o) {
    V sum = V::load(folded.sum(o) + channel);
    for (int h = 0; h < kHeads; ++h) sum = fma(head[h], V::load(folded.factor(o, h) + channel), sum);
    mixed[o] = gelu_of(sum);
  }
  store_in_turns(mixed, count, out);
}

template <typename T>
void mix_scales(const Mixing<T>& mixing, const Compute<T>* numbers, T* output, int64_t begin, int64_t end) {
  using V = Vector<T>;
  using A = Compute<T>;
  constexpr int kHeads = Mixing<T>::kHeads, kOutputs = Mixing<T>::kOutputs;
  constexpr int64_t kRows = Mixing<T>::kRows, kColumns = Mixing<T>::kColumns, kBlock = Mixing<T>::kBlock;
  constexpr int kAround = Mixing<T>::kSizes[kHeads - 1] / 2;
  const Folded<const A> folded{mixing.blocks * kBlock, numbers};
  const Gelu<T> gelu_of;
  const int64_t head_size = kRows * kColumns * V::size;
  Buffer<A> buffer;
  A* const heads = buffer.at_least(kHeads * head_size + (kRows + 2 * kAround) * (kColumns + 2 * kAround) * V::size);
  A* const padded = heads + kHeads * head_size;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t block = task % mixing.blocks, place = task / mixing.blocks;
    const int64_t left = place % mixing.across * kColumns, top = place / mixing.across % mixing.down * kRows;
    const Window window{place / mixing.across / mixing.down, top, std::min(top + kRows, mixing.height), left,
                    std::min(left + kColumns, mixing.width)};
    const int64_t steps = whole_steps(window.right - window.left);
    each_vector<V>(std::min(kBlock, mixing.channels - block * kBlock), [&](int64_t c, int count) {
      const int64_t channel = block * kBlock + c;
      convolve_head<0>(mixing, folded, window, channel, count, padded, heads);
      convolve_head<1>(mixing, folded, window, channel, count, padded, heads + head_size);
      convolve_head<2>(mixing, folded, window, channel, count, padded, heads + 2 * head_size);
      convolve_head<3>(mixing, folded, window, channel, count, padded, heads + 3 * head_size);
      for (int64_t y = window.top; y < window.bottom; ++y) {
        const A* pixel = heads + (y - window.top) * steps * V::size;
        T* out = output + (((window.image * mixing.height + y) * mixing.width + window.left) * mixing.channels + channel) * kOutputs;
        for (int64_t x = window.left; x < window.right; ++x, pixel += V::size, out += mixing.channels * kOutputs)
          mix_pixel(folded, gelu_of, pixel, head_size, channel, count, out);
      }
    });
  }
}

}  // namespace fused_layers::CPU_PATH
