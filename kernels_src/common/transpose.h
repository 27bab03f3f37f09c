// N x N numbers of 4 bytes or 8: rows that are `stride` numbers apart become columns.
#pragma once

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "numbers.h"

namespace common::CPU_PATH {

template <int N, typename A>
ALWAYS_INLINE void transpose(const A* rows, int64_t stride, A* out, int64_t columns = N) {
#ifdef __AVX512F__
  if constexpr (sizeof(A) == 4 && N == 16) {
    __m512i row[16], pair[16], four[16];  // rows, of two and of four rows the columns of each 128 bits
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) row[i] = _mm512_loadu_si512(rows + i * stride);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      pair[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
      pair[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
      four[i] = _mm512_unpacklo_epi64(pair[i], pair[i + 2]);
      four[i + 1] = _mm512_unpackhi_epi64(pair[i], pair[i + 2]);
      four[i + 2] = _mm512_unpacklo_epi64(pair[i + 1], pair[i + 3]);
      four[i + 3] = _mm512_unpackhi_epi64(pair[i + 1], pair[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i even[2] = {_mm512_shuffle_i32x4(four[j], four[4 + j], 0x88),
                               _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0x88)};
      const __m512i odd[2] = {_mm512_shuffle_i32x4(four[j], four[4 + j], 0xdd),
                              _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0xdd)};
      row[j] = _mm512_shuffle_i32x4(even[0], even[1], 0x88);
      row[4 + j] = _mm512_shuffle_i32x4(odd[0], odd[1], 0x88);
      row[8 + j] = _mm512_shuffle_i32x4(even[0], even[1], 0xdd);
      row[12 + j] = _mm512_shuffle_i32x4(odd[0], odd[1], 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      if (i < columns) _mm512_store_si512(out + i * 16, row[i]);
    return;
  }
#endif
  for (int64_t x = 0; x < columns; ++x)
    for (int c = 0; c < N; ++c) out[x * N + c] = rows[c * stride + x];
}

}  // namespace common::CPU_PATH
