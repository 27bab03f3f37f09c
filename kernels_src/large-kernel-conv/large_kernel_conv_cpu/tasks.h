// The tasks of every path.
#pragma once

#include "correlate.h"
#include "pack.h"

namespace large_kernel_conv::CPU_PATH {

// Packed pixels that should stay in the second-level cache, in bytes
constexpr int64_t kBandBytes = 256 << 10;

template <typename T>
int64_t channel_block() {
  return Channels<Compute<T>>::size;
}

// The columns of a packed image and of a packed kernel, and those that the kernel reaches on the left of the image
template <class V>
struct Columns {
  int64_t image, kernel, pad;
  Columns(int64_t image_width, int64_t kernel_width, int64_t pad_width)
      : image(image_width + V::kTaps - 1),
        kernel((kernel_width + V::kTaps - 1) / V::kTaps),
        pad(pad_width - V::kTaps + 1) {}
};

template <typename T>
void convolve_directly(const Convolution<T>& p, int64_t begin, int64_t end) {
  using V = Channels<Compute<T>>;
  using A = Compute<T>;
  const Geometry& g = p.size;
  const int64_t pad_height = g.kernel_height / 2, pad_width = g.kernel_width / 2;
  const Columns<V> columns(g.width, g.kernel_width, pad_width);
  Buffer<typename V::Element> kernel_buffer, in_buffer;
  Buffer<A> out_buffer;
  auto* kernel = kernel_buffer.at_least(g.kernel_height * columns.kernel * V::size);
  int64_t packed = -1;  // the block whose kernel is there
  bool kernel_usable = true;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t chunk = task % p.chunks, image = task / p.chunks % g.batch, block = task / p.chunks / g.batch;
    const int64_t channel = block * V::size, channels = std::min<int64_t>(V::size, g.channels - channel);
    if (block != packed)
      kernel_usable = pack_kernel<V>(at(p.weight, 0, channel), channels, 0, g.kernel_height, g.kernel_width, kernel);
    packed = block;
    const int64_t out_first = g.height * chunk / p.chunks, out_last = g.height * (chunk + 1) / p.chunks;
    const int64_t in_first = std::max<int64_t>(0, out_first - pad_height);
    const int64_t in_last = std::min(g.height, out_last + pad_height);
    auto* in = in_buffer.at_least((in_last - in_first) * columns.image * V::size);
    const bool usable = pack_image<V>(at(p.input, image, channel), channels, in_first, in_last, g.width, in);
    if constexpr (V::kFiniteOnly)
      if (!usable || !kernel_usable) {
        avx512::convolve(p, task, task + 1);  // it has the same tasks
        continue;
      }
    const int64_t pixels = (out_last - out_first) * g.width;
    A* out = out_buffer.at_least(pixels * V::size);
    V bias = V::zero();
    for (int64_t c = 0; p.bias && c < channels; ++c) bias.v[c] = widen(p.bias[channel + c]);
    for (int64_t pixel = 0; pixel < pixels; ++pixel) bias.store(out + pixel * V::size);
    correlate<V>({in, in_first, in_last, columns.image, kernel, g.kernel_height, columns.kernel, out, out_first,
                  out_last, g.width, pad_height, columns.pad});
    unpack<V>(out, at(p.output, image, channel), channels, out_first, out_last, g.width);
  }
}

template <typename T>
void differentiate_weight(const WeightGradient<T>& p, int64_t begin, int64_t end) {
  using V = Channels<Compute<T>>;
  using A = Compute<T>;
  const Geometry& g = p.size;
  const int64_t pad_height = g.kernel_height / 2, pad_width = g.kernel_width / 2;
  const int64_t band = std::max<int64_t>(1, kBandBytes / (g.width * V::size * int64_t(sizeof(A))));
  const Columns<V> columns(g.width, g.width, pad_width);
  Buffer<typename V::Element> in_buffer, gradient_buffer;
  Buffer<A> out_buffer;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t chunk = task % p.chunks, channel = task / p.chunks * V::size;
    const int64_t channels = std::min<int64_t>(V::size, g.channels - channel);
    const int64_t out_first = g.kernel_height * chunk / p.chunks, out_last = g.kernel_height * (chunk + 1) / p.chunks;
    const int64_t outs = (out_last - out_first) * g.kernel_width * V::size;
    A* out = out_buffer.at_least(outs);
    memset(out, 0, outs * sizeof(A));
    bool usable = true;
    for (int64_t image = 0; usable && image < g.batch; ++image) {
      for (int64_t first = 0; usable && first < g.height; first += band) {
        const int64_t last = std::min(g.height, first + band);
        const int64_t in_first = std::max<int64_t>(0, first + out_first - pad_height);
        const int64_t in_last = std::min(g.height, last + out_last - 1 - pad_height);
        if (in_first >= in_last) continue;
        auto* in = in_buffer.at_least((in_last - in_first) * columns.image * V::size);
        usable &= pack_image<V>(at(p.input, image, channel), channels, in_first, in_last, g.width, in);
        auto* gradient = gradient_buffer.at_least((last - first) * columns.kernel * V::size);
        usable &= pack_kernel<V>(at(p.grad_output, image, channel), channels, first, last, g.width, gradient);
        correlate<V>({in, in_first, in_last, columns.image, gradient, last - first, columns.kernel, out, out_first,
                      out_last, g.kernel_width, pad_height - first, columns.pad});
      }
    }
    if constexpr (V::kFiniteOnly)
      if (!usable) {
        avx512::differentiate_weight(p, task, task + 1);
        continue;
      }
    unpack<V>(out, at(p.grad_weight, 0, channel), channels, out_first, out_last, g.kernel_width);
  }
}

template <typename T>
void differentiate_bias(const BiasGradient<T>& p, int64_t begin, int64_t end) {
  using V = Channels<Compute<T>>;
  using A = Compute<T>;
  const Geometry& g = p.size;
  Buffer<A> buffer;
  A* row = buffer.at_least(g.width * V::size);
  for (int64_t channel = begin * V::size; channel < std::min(g.channels, end * V::size); channel += V::size) {
    const int64_t channels = std::min<int64_t>(V::size, g.channels - channel);
    V total = V::zero();
    for (int64_t image = 0; image < g.batch; ++image) {
      for (int64_t r = 0; r < g.height; ++r) {
        pack<V>(at(p.grad_output, image, channel), channels, r, r + 1, g.width, row);
        V sum = V::zero();  // of a row apart, which keeps the rounding error small
        for (int64_t x = 0; x < g.width; ++x) sum.add(V::load(row + x * V::size));
        total.add(sum);
      }
    }
    for (int64_t c = 0; c < channels; ++c) narrow(A(total.v[c]), p.grad_bias[channel + c]);
  }
}

}  // namespace large_kernel_conv::CPU_PATH
