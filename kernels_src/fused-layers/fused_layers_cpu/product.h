// Products of rows with a weight, and what follows them while their sums are in the first-level cache.
//
// A panel is some columns of the weight, packed by the thread that needs it; a tile is some rows times a panel, and its
// sums stay in registers over the whole depth.
#pragma once

#include <algorithm>

#include "common/buffer.h"
#include "gelu.h"
#include "pack.h"

namespace fused_layers::CPU_PATH {

constexpr int kTileRows = 6, kTileVectors = 4;

template <typename T>
int64_t panel_count(int64_t columns) {
  constexpr int64_t kColumns = Vector<T>::size * kTileVectors;
  return (columns + kColumns - 1) / kColumns;
}

// While it multiplies, it asks for memory from `ahead` on, a cache line for each unit.
template <typename T, int kRows, int kVectors>
void multiply_tile(const T* rows, int64_t depth, const typename Unit<T>::type* panel, const char* ahead,
                   Vector<T>* out) {
  using U = Unit<T>;
  using V = Vector<T>;
  V sums[kRows][kVectors];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] = V::splat(0);
  const auto add = [&](int64_t first, int count) __attribute__((always_inline)) {
    decltype(U::load(panel)) columns[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) columns[v] = U::load(panel + v * V::size);
    panel += kVectors * V::size;
    __builtin_prefetch(ahead, 0, 2);
    ahead += 64;
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const auto number = U::splat(rows + r * depth + first, count);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] = U::add_product(number, columns[v], sums[r][v]);
    }
  };
  int64_t first = 0;
  for (; first + U::depth <= depth; first += U::depth) add(first, U::depth);
  if (first < depth) add(first, 1);
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) out[r * kVectors + v] = sums[r][v];
}

template <typename T>
using Tile = void (*)(const T*, int64_t, const typename Unit<T>::type*, const char*, Vector<T>*);

template <typename T>
Tile<T> tile_of(int64_t rows, int64_t vectors) {
#define ROW(R) {multiply_tile<T, R, 1>, multiply_tile<T, R, 2>, multiply_tile<T, R, 3>, multiply_tile<T, R, 4>}
  static constexpr Tile<T> kTiles[kTileRows][kTileVectors] = {ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6)};
#undef ROW
  return kTiles[rows - 1][vectors - 1];
}

// Stores the sums of a tile, the first of which is (row, column) of the output, after follow(sum, scale, position).
template <typename T, typename F>
ALWAYS_INLINE void store_tile(const Product<T>& p, const Vector<T>* sums, int64_t row, int64_t rows, int64_t column,
                              int64_t vectors, F follow) {
  using V = Vector<T>;
  for (int64_t v = 0; v < vectors; ++v, column += V::size) {
    const int count = int(std::min<int64_t>(V::size, p.columns - column));
    const V bias = p.bias ? load<V>(p.bias + column, count) : V::splat(0);
    const V scale = p.scale ? load<V>(p.scale + column, count) : V::splat(1);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = (row + r) * p.columns + column;
      store(follow(sums[r * vectors + v] + bias, scale, at, count), p.output + at, count);
    }
  }
}

template <typename T>
void finish_tile(const Product<T>& p, const Vector<T>* sums, int64_t row, int64_t rows, int64_t column,
                 int64_t vectors) {
  using V = Vector<T>;
  if (p.gelu) {
    const Gelu<T> gelu_of;
    store_tile(p, sums, row, rows, column, vectors, [&](const V& sum, const V&, int64_t, int) { return gelu_of(sum); });
  } else if (p.residual) {
    store_tile(p, sums, row, rows, column, vectors, [&](const V& sum, const V& scale, int64_t at, int count) {
      return fma(sum, scale, load<V>(p.residual + at, count));
    });
  } else {
    store_tile(p, sums, row, rows, column, vectors,
               [&](const V& sum, const V& scale, int64_t, int) { return sum * scale; });
  }
}

template <typename T>
void multiply(const Product<T>& p, int64_t begin, int64_t end, int64_t first_panel, int64_t last_panel) {
  using V = Vector<T>;
  using U = Unit<T>;
  const int64_t units = (p.depth + U::depth - 1) / U::depth;
  const int64_t vectors = (p.columns + V::size - 1) / V::size, panels = panel_count<T>(p.columns);
  const int64_t tiles = (end - begin + kTileRows - 1) / kTileRows;
  const auto column_of = [&](int64_t panel) { return panel * vectors / panels * V::size; };  // panels of like width
  const auto weight_of = [&](int64_t panel) { return p.weight + std::min(column_of(panel), p.columns) * p.depth; };
  Buffer<typename U::type> buffer;
  alignas(64) V sums[kTileRows * kTileVectors];
  for (int64_t i = first_panel; i < last_panel; ++i) {
    const int64_t column = column_of(i), width = column_of(i + 1) - column;
    auto* const panel = buffer.at_least(units * V::size * kTileVectors);
    pack(weight_of(i), p.depth, std::min(width, p.columns - column), width, panel);
    const char* ahead = reinterpret_cast<const char*>(weight_of(i + 1 < last_panel ? i + 1 : i));
    const char* const ahead_end = reinterpret_cast<const char*>(weight_of(i + 1 < last_panel ? i + 2 : i));
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = begin + t * (end - begin) / tiles, rows = begin + (t + 1) * (end - begin) / tiles - row;
      const char* const next = ahead < ahead_end ? ahead : reinterpret_cast<const char*>(p.input + (row + rows) * p.depth);
      tile_of<T>(rows, width / V::size)(p.input + row * p.depth, p.depth, panel, next, sums);
      ahead += units * 64;
      finish_tile(p, sums, row, rows, column, width / V::size);
    }
  }
}

}  // namespace fused_layers::CPU_PATH
