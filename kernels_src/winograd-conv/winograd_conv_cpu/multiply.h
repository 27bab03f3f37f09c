// The products: of rows of transformed pixels with a panel of transformed weights, in registers.
#pragma once

#include "problem.h"

namespace winograd_conv::CPU_PATH {

using V = Path::Vector;
constexpr int kVectors = 2, kPanel = kVectors * V::size;

// (ROWS, kRow), of which `count` columns count, x (count, kPanel) -> (ROWS, kPanel)
template <int ROWS>
void multiply(const float* rows, const float* weight, int64_t count, float* out) {
  V sums[ROWS][kVectors];
  for (auto& row : sums)
    for (V& sum : row) sum = V::splat(0);
  for (int64_t k = 0; k < count; ++k, weight += kPanel) {
    V factors[kVectors];
    for (int i = 0; i < kVectors; ++i) factors[i] = V::load(weight + i * V::size);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const V pixel = V::splat(rows[r * kRow + k]);
      for (int i = 0; i < kVectors; ++i) sums[r][i] = fma(pixel, factors[i], sums[r][i]);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int i = 0; i < kVectors; ++i) sums[r][i].store(out + r * kPanel + i * V::size);
}

// Any number of rows; the sums of a row do not depend on how many there are.
template <int ROWS = Path::kRows>
void multiply_all(const float* rows, int64_t number, const float* weight, int64_t count, float* out) {
  for (; number >= ROWS; number -= ROWS, rows += ROWS * kRow, out += ROWS * kPanel)
    multiply<ROWS>(rows, weight, count, out);
  if constexpr (ROWS > 1) {
    if (number > 0) multiply_all<ROWS - 1>(rows, number, weight, count, out);
  }
}

}  // namespace winograd_conv::CPU_PATH
