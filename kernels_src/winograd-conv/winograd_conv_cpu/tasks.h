// The tasks of a path; to be included last by the path's file.
#pragma once

#include <algorithm>

#include "common/buffer.h"
#include "multiply.h"
#include "transforms.h"

namespace winograd_conv::CPU_PATH {

struct Tile {
  int64_t image, row, column;  // of tiles, each of 2 x 2 pixels
};

ALWAYS_INLINE Tile tile_at(const Convolution& p, int64_t index) {
  const int64_t of_image = p.tile_rows * p.tile_columns;
  return {index / of_image, index % of_image / p.tile_columns, index % p.tile_columns};
}

int64_t panel() { return kPanel; }

void transform_weight(const Convolution& p, const Chunk& chunk, int64_t begin, int64_t end) {
  constexpr int kAtOnce = 16;  // input channels
  alignas(64) float taps[kAtOnce * 9][kPanel] = {};
  const int64_t of_filter = p.in_channels * 9;
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t first = panel * kPanel, filters = std::min<int64_t>(kPanel, p.out_channels - first);
    for (int64_t k = 0; k < chunk.count; k += kAtOnce) {
      const int64_t channels = std::min<int64_t>(kAtOnce, chunk.count - k);
      for (int64_t i = 0; i < filters; ++i) {
        const float* const filter = p.weight + (first + i) * of_filter + (chunk.first + k) * 9;
        for (int64_t tap = 0; tap < channels * 9; ++tap) taps[tap][i] = filter[tap];
      }
      for (int64_t c = 0; c < channels; ++c)
        for (int i = 0; i < kPanel; i += V::size) {
          V of_channel[3][3], points[4][4];
          for (int tap = 0; tap < 9; ++tap) of_channel[tap / 3][tap % 3] = V::load(taps[c * 9 + tap] + i);
          transform_weight(of_channel, points);
          for (int point = 0; point < kPoints; ++point)
            points[point / 4][point % 4].store(
                chunk.weight + ((panel * kPoints + point) * chunk.count + k + c) * kPanel + i);
        }
    }
  }
}

// (kPoints, kTiles, kRow) from the pixels of tiles [begin, end)
void transform_pixels(const Convolution& p, const Chunk& chunk, int64_t begin, int64_t end, float* out) {
  for (int64_t index = begin; index < end; ++index, out += kRow) {
    const Tile tile = tile_at(p, index);
    const float* pixels[kPoints];
    for (int point = 0; point < kPoints; ++point) {
      const int64_t y = 2 * tile.row - 1 + point / 4, x = 2 * tile.column - 1 + point % 4;
      const bool inside = y >= 0 && y < p.height && x >= 0 && x < p.width;
      const int64_t pixel = (tile.image * p.height + y) * p.width + x;
      pixels[point] = inside ? p.input + pixel * p.in_channels + chunk.first : p.zeros;
    }
    each_vector(chunk.count, [&](int64_t c, int count) {
      V d[4][4];
      for (int point = 0; point < kPoints; ++point) d[point / 4][point % 4] = load(pixels[point] + c, count);
      transform_pixels(d);
      for (int point = 0; point < kPoints; ++point)
        d[point / 4][point % 4].store(out + point * kTiles * kRow + c);
    });
  }
}

// Adds what (kPoints, kTiles, kPanel) products give for tiles [begin, end) to a panel of the output.
void transform_products(const Convolution& p, const Chunk& chunk, int64_t panel, int64_t begin, int64_t end,
                        const float* products) {
  const bool is_first = chunk.first == 0, is_last = chunk.first + chunk.count == p.in_channels;
  const int64_t first = panel * kPanel;
  for (int64_t index = begin; index < end; ++index, products += kPanel) {
    const Tile tile = tile_at(p, index);
    each_vector(std::min<int64_t>(kPanel, p.out_channels - first), [&](int64_t c, int count) {
      V m[4][4], out[2][2];
      for (int point = 0; point < kPoints; ++point)
        m[point / 4][point % 4] = V::load(products + point * kTiles * kPanel + c);
      transform_products(m, out);
      const V bias = p.bias ? load(p.bias + first + c, count) : V::splat(0);
      for (int i = 0; i < 4; ++i) {
        const int64_t y = 2 * tile.row + i / 2, x = 2 * tile.column + i % 2;
        if (y >= p.height || x >= p.width) continue;
        float* const pixel = p.output + ((tile.image * p.height + y) * p.width + x) * p.out_channels + first + c;
        V sum = out[i / 2][i % 2] + (is_first ? bias : load(pixel, count));
        if (is_last && p.relu) sum = max(V::splat(0), sum);  // in this order NaN stays
        store(sum, pixel, count);
      }
    });
  }
}

void convolve(const Convolution& p, const Chunk& chunk, int64_t begin, int64_t end) {
  Buffer<float> pixels_buffer, products_buffer;
  float* const pixels = pixels_buffer.at_least(kPoints * kTiles * kRow);
  float* const products = products_buffer.at_least(kPoints * kTiles * kPanel);
  const int64_t tiles = p.batch * p.tile_rows * p.tile_columns, panels = (p.out_channels + kPanel - 1) / kPanel;
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = tiles * block / p.blocks, last = tiles * (block + 1) / p.blocks;
    transform_pixels(p, chunk, first, last, pixels);
    for (int64_t panel = 0; panel < panels; ++panel) {
      for (int64_t point = 0; point < kPoints; ++point)
        multiply_all(pixels + point * kTiles * kRow, last - first,
                     chunk.weight + (panel * kPoints + point) * chunk.count * kPanel, chunk.count,
                     products + point * kTiles * kPanel);
      transform_products(p, chunk, panel, first, last, products);
    }
  }
}

}  // namespace winograd_conv::CPU_PATH
