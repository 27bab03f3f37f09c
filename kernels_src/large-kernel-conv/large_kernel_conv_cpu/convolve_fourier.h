// Convolution with large kernels: rows are transformed, and columns of their transforms convolved as they are.
//
// For one kernel row, a row of outputs is a product of polynomials, image(x) kernel(1 / x). At the roots of x^M - i,
// kernel(1 / x) is the complex conjugate of kernel(x). The products with all kernel rows are added up before the way
// back: what was a convolution of H x W pixels with KH x KW taps is one of H with KH at M > W / 2 roots each.
#pragma once

#include "fourier.h"
#include "fourier_rule.h"
#include "tasks.h"

namespace large_kernel_conv::CPU_PATH {

// What comes out with numbers that are not finite is convolved again directly: on this way they reach whole rows, and
// large numbers may overflow.
template <typename T>
void convolve_by_fourier(const Convolution<T>& p, int64_t begin, int64_t end) {
  using V = Channels<Compute<T>>;
  using C = Complex<V>;
  using A = Compute<T>;
  const Geometry& g = p.size;
  const Reach reach(g);
  const int64_t kernel_height = 2 * reach.height + 1, kernel_width = 2 * reach.width + 1;
  const Transform<V> transform(transform_length(g));
  const int64_t length = transform.length, row_size = 2 * length * V::size;
  Buffer<A> row_buffer, work_buffer, tap_buffer, kernel_buffer, column_buffer, sum_buffer;
  const Place<A> row{row_buffer.at_least(row_size), V::size, length * V::size};
  const Place<A> work{work_buffer.at_least(row_size), V::size, length * V::size};
  const auto forward = [&](A* out, int64_t step) {  // of `row`
    transform.forward({row.data, row.step, row.to_im}, work, {out, step, V::size});
  };
  A* kernel = kernel_buffer.at_least(length * kernel_height * C::size);
  int64_t packed = -1;  // the block whose kernel is there
  for (int64_t task = begin; task < end; ++task) {
    const int64_t chunk = task % p.chunks, image = task / p.chunks % g.batch, block = task / p.chunks / g.batch;
    const int64_t channel = block * V::size, channels = std::min<int64_t>(V::size, g.channels - channel);
    if (block != packed) {
      A* taps = tap_buffer.at_least(g.kernel_height * g.kernel_width * V::size);
      pack<V>(at(p.weight, 0, channel), channels, 0, g.kernel_height, g.kernel_width, taps);
      taps += ((g.kernel_height / 2 - reach.height) * g.kernel_width + g.kernel_width / 2 - reach.width) * V::size;
      memset(row.data, 0, row_size * sizeof(A));
      for (int64_t a = 0; a < kernel_height; ++a) {
        memcpy(row.data, taps + a * g.kernel_width * V::size, kernel_width * V::size * sizeof(A));
        forward(kernel + a * C::size, kernel_height * C::size);
      }
    }
    packed = block;
    const int64_t out_first = g.height * chunk / p.chunks, out_last = g.height * (chunk + 1) / p.chunks;
    const int64_t in_first = std::max<int64_t>(0, out_first - reach.height);
    const int64_t in_last = std::min(g.height, out_last + reach.height);
    const int64_t in_rows = in_last - in_first, out_rows = out_last - out_first;
    const int64_t column = (in_rows | 1) * C::size;  // odd, which spreads columns over the cache
    A* columns = column_buffer.at_least(length * column);
    memset(row.data, 0, row_size * sizeof(A));
    for (int64_t r = 0; r < in_rows; ++r) {
      pack<V>(at(p.input, image, channel), channels, in_first + r, in_first + r + 1, g.width,
              row.data + reach.width * V::size);
      forward(columns + r * C::size, column);
    }
    A* sums = sum_buffer.at_least(out_rows * C::size);
    for (int64_t k = 0; k < length; ++k) {
      const size_t bytes = out_rows * C::size * sizeof(A);
      memset(sums, 0, bytes);
      correlate<C>({columns + k * column, 0, 1, in_rows, kernel + k * kernel_height * C::size, 1, kernel_height, sums,
                    0, 1, out_rows, 0, reach.height - (out_first - in_first)});
      memcpy(columns + k * column, sums, bytes);
    }
    V bias = V::zero(), poison = V::zero();
    for (int64_t c = 0; p.bias && c < channels; ++c) bias.v[c] = widen(p.bias[channel + c]);
    for (int64_t r = 0; r < out_rows; ++r) {
      transform.inverse({columns + r * C::size, column, V::size}, row);
      for (int64_t x = 0; x < g.width; ++x) {
        V sum = V::load(row.data + x * V::size);
        poison.v += sum.v * 0;
        sum.v = sum.v * (1 / A(length)) + bias.v;
        sum.store(row.data + x * V::size);
      }
      unpack<V>(row.data, at(p.output, image, channel), channels, out_first + r, out_first + r + 1, g.width);
    }
    bool finite = true;
    for (int c = 0; c < V::size; ++c) finite &= poison.v[c] == 0;
    if (!finite) convolve_directly(p, task, task + 1);
  }
}

}  // namespace large_kernel_conv::CPU_PATH
