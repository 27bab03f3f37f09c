// Convolution of bfloat16 on the tile registers of AMX, with float32 sums.
//
// 16 x 16 outputs of one channel are a sum of matrix products over kernel rows a:
//   output[i][n] += sum over j of image[i + a][j] * kernel[a][j - n].
// The left factor is read as it lies in the zero-padded image. The right one is a Toeplitz matrix, the same for every
// tile of outputs and every image, and is never built: with pairs z[i] = (kernel[a][-i], kernel[a][1 - i]), its rows
// are z[-2k] ... z[15 - 2k], which a tile load with a row stride of -8 bytes reads from the one short row z.
//
// Four tiles of outputs share each load of it. Where there are fewer tiles, kernel rows are dealt out to several sums:
// a sum must wait for its last addition.
#pragma once

#include <algorithm>
#include <utility>

#include "amx.h"
#include "channel_lanes.h"

namespace large_kernel_conv::amx {

constexpr int kSide = 16, kSlice = 32;  // outputs of a tile on a side; image columns in one product
constexpr int kSums = 4;                // tiles 0-3; the factors alternate between 4 and 5, 6 and 7

struct Layout {
  Geometry size;
  int64_t pad_height = size.kernel_height / 2, pad_width = size.kernel_width / 2;
  int64_t row_tiles = (size.height + kSide - 1) / kSide, column_tiles = (size.width + kSide - 1) / kSide;
  int64_t rows = (size.height + row_tiles - 1) / row_tiles;  // of a tile
  int64_t slices = (kSide - 1 + size.kernel_width + kSlice - 1) / kSlice;
  // of a padded image; an odd number of cache lines between rows spreads them over the cache
  int64_t stride = (kSide * (column_tiles - 1) + kSlice * slices) / 64 * 64 + 96;
  int64_t image = (rows * row_tiles + size.kernel_height - 1) * stride;
  // of z, in numbers: two for a pair
  int64_t origin = 2 * kSlice * slices, kernel_row = origin + 2 * kSide, kernel = kernel_row * size.kernel_height;
};

inline bool is_finite(uint16_t bits) { return (bits & 0x7f80) != 0x7f80; }

// The rows z of one channel's kernel; false where a weight is infinite or not a number.
inline bool pack_kernel(const Layout& s, const View<const BFloat16>& weight, uint16_t* out) {
  memset(out, 0, s.kernel * sizeof(*out));
  bool finite = true;
  for (int64_t a = 0; a < s.size.kernel_height; ++a, out += s.kernel_row)
    for (int64_t b = 0; b < s.size.kernel_width; ++b) {
      const uint16_t bits = weight.data[a * weight.row + b * weight.column].bits;
      finite &= is_finite(bits);
      out[s.origin - 2 * b] = out[s.origin + 2 * (1 - b) + 1] = bits;
    }
  return finite;
}

// One channel of one image into the middle of zeros; false where a number is not finite.
inline bool pack_image(const Layout& s, const View<const BFloat16>& image, uint16_t* out) {
  memset(out, 0, s.image * sizeof(*out));
  bool finite = true;
  for (int64_t r = 0; r < s.size.height; ++r)
    for (int64_t x = 0; x < s.size.width; ++x) {
      const uint16_t bits = image.data[r * image.row + x * image.column].bits;
      finite &= is_finite(bits);
      out[(r + s.pad_height) * s.stride + x + s.pad_width] = bits;
    }
  return finite;
}

template <typename F, int... kIndex>
ALWAYS_INLINE void call_each(F f, std::integer_sequence<int, kIndex...>) {
  (f(std::integral_constant<int, kIndex>()), ...);
}
template <int kCount, typename F>
ALWAYS_INLINE void unrolled(F f) {
  call_each(f, std::make_integer_sequence<int, kCount>());
}

struct Tile {
  const uint16_t* in;  // the padded image at the tile's corner
  int64_t column;
  View<BFloat16> out;  // the image that it lies in
};

// kTiles tiles of one channel that begin at the same row of their images
template <int kTiles>
void convolve_tiles(const Layout& s, const Tile* tiles, const uint16_t* kernel, int64_t row, float bias) {
  constexpr int kParts = kSums / kTiles;
  unrolled<kParts * kTiles>([](auto sum) { zero<sum>(); });
  // kernel rows that meet the image
  const int64_t first = std::max<int64_t>(0, s.pad_height - row - s.rows + 1);
  const int64_t last = std::min(s.size.kernel_height, s.pad_height + s.size.height - row);
  for (int64_t a = first; a < last; a += kParts) {
    unrolled<kParts>([&](auto part) {
      if (a + part >= last) return;
      for (int64_t slice = 0; slice < s.slices; ++slice) {
        const int64_t column = slice * kSlice;
        load<6 + part % 2>(kernel + (a + part) * s.kernel_row + s.origin - 2 * column, -8);
        unrolled<kTiles>([&](auto t) {
          const int64_t begin = tiles[t].column + column;
          if (begin >= s.pad_width + s.size.width || begin + kSlice <= s.pad_width) return;  // zeros
          load<4 + t % 2>(tiles[t].in + (a + part) * s.stride + column, s.stride * 2);
          add_product<part * kTiles + t, 4 + t % 2, 6 + part % 2>();
        });
      }
    });
  }
  alignas(64) float sums[kSums][kSide][kSide];
  unrolled<kParts * kTiles>([&](auto sum) { store<sum>(sums[sum], kSide * sizeof(float)); });
  for (int t = 0; t < kTiles; ++t) {
    const View<BFloat16>& out = tiles[t].out;
    const int64_t width = std::min<int64_t>(kSide, s.size.width - tiles[t].column);
    for (int64_t i = 0; i < std::min(s.rows, s.size.height - row); ++i)
      for (int64_t j = 0; j < width; ++j) {
        float sum = sums[t][i][j];
        for (int part = 1; part < kParts; ++part) sum += sums[part * kTiles + t][i][j];
        narrow(sum + bias, out.data[(row + i) * out.row + (tiles[t].column + j) * out.column]);
      }
  }
}

// One channel of all images
inline void convolve_channel(const Layout& s, const uint16_t* images, int64_t image_step, const uint16_t* kernel,
                             const View<BFloat16>& output, float bias) {
  for (int64_t row = 0; row < s.size.height; row += s.rows) {
    Tile tiles[kSums];
    const int64_t count = s.size.batch * s.column_tiles;
    for (int64_t done = 0; done < count;) {
      const int tiles_now = int(std::min<int64_t>(kSums, count - done));
      for (int t = 0; t < tiles_now; ++t, ++done) {
        const int64_t image = done / s.column_tiles, column = done % s.column_tiles * kSide;
        View<BFloat16> out = output;
        out.data += image * out.image;
        tiles[t] = {images + image * image_step + row * s.stride + column, column, out};
      }
      switch (tiles_now) {
        case 4:
          convolve_tiles<4>(s, tiles, kernel, row, bias);
          break;
        case 3:
          convolve_tiles<3>(s, tiles, kernel, row, bias);
          break;
        case 2:
          convolve_tiles<2>(s, tiles, kernel, row, bias);
          break;
        default:
          convolve_tiles<1>(s, tiles, kernel, row, bias);
      }
    }
  }
}

// The images [first, last) and `channels` channels from `channel` on, as a convolution of its own
inline Convolution<BFloat16> part_of(Convolution<BFloat16> p, int64_t first, int64_t last, int64_t channel,
                                     int64_t channels) {
  p.input.data += first * p.input.image + channel * p.input.channel;
  p.weight.data += channel * p.weight.channel;
  p.output.data += first * p.output.image + channel * p.output.channel;
  if (p.bias) p.bias += channel;
  p.size.batch = last - first, p.size.channels = channels, p.chunks = 1;
  return p;
}

void convolve(const Convolution<BFloat16>& problem, int64_t begin, int64_t end, Convolve<BFloat16> otherwise) {
  Buffer<uint16_t> kernel_buffer, image_buffer;
  const Geometry& g = problem.size;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t chunk = task % problem.chunks, channel = task / problem.chunks * kChannelBlock;
    const Convolution<BFloat16> p =
        part_of(problem, g.batch * chunk / problem.chunks, g.batch * (chunk + 1) / problem.chunks, channel,
                std::min(kChannelBlock, g.channels - channel));
    const Layout s{p.size};
    uint16_t* kernels = kernel_buffer.at_least(p.size.channels * s.kernel);
    uint16_t* images = image_buffer.at_least(p.size.batch * p.size.channels * s.image);
    bool finite = true;
    for (int64_t c = 0; c < p.size.channels; ++c) {
      finite &= pack_kernel(s, at(p.weight, 0, c), kernels + c * s.kernel);
      for (int64_t image = 0; image < p.size.batch; ++image)
        finite &= pack_image(s, at(p.input, image, c), images + (image * p.size.channels + c) * s.image);
    }
    if (!finite) {  // zeros of the padding and of the Toeplitz matrix would turn an infinity into NaN
      otherwise(p, 0, p.size.batch);
      continue;
    }
    configure(int(s.rows));
    for (int64_t c = 0; c < p.size.channels; ++c)
      convolve_channel(s, images + c * s.image, p.size.channels * s.image, kernels + c * s.kernel, at(p.output, 0, c),
                       p.bias ? widen(p.bias[c]) : 0.0f);
    release();
  }
}

}  // namespace large_kernel_conv::amx
