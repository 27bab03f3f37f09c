// The tile registers of AMX, and the same in plain C++ for tests on processors without them
// (LARGE_KERNEL_CONV_EMULATE_AMX).
#pragma once

#include <cstdint>
#include <cstring>

namespace large_kernel_conv::amx {

constexpr int kTileRows = 16, kTileBytes = 64;

#ifdef LARGE_KERNEL_CONV_EMULATE_AMX

inline thread_local uint8_t tiles[8][kTileRows][kTileBytes];
inline thread_local int rows_of_tiles;

inline void configure(int rows) { rows_of_tiles = rows; }
inline void release() {}
template <int kTile>
void zero() {
  memset(tiles[kTile], 0, sizeof(tiles[kTile]));
}
template <int kTile>
void load(const void* first, int64_t stride) {
  const int rows = kTile < 6 ? rows_of_tiles : kTileRows;
  for (int i = 0; i < rows; ++i) memcpy(tiles[kTile][i], static_cast<const char*>(first) + i * stride, kTileBytes);
}
template <int kTile>
void store(void* first, int64_t stride) {
  for (int i = 0; i < rows_of_tiles; ++i) memcpy(static_cast<char*>(first) + i * stride, tiles[kTile][i], kTileBytes);
}
template <int kSum, int kLeft, int kRight>
void add_product() {
  const auto number = [](const uint8_t* bytes) {
    uint32_t bits = uint32_t(bytes[0]) << 16 | uint32_t(bytes[1]) << 24;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
  };
  for (int i = 0; i < rows_of_tiles; ++i)
    for (int j = 0; j < kTileBytes / 4; ++j) {
      float sum;
      memcpy(&sum, tiles[kSum][i] + 4 * j, sizeof(sum));
      for (int k = 0; k < kTileBytes / 4; ++k)
        for (int half = 0; half < 4; half += 2)
          sum += number(tiles[kLeft][i] + 4 * k + half) * number(tiles[kRight][k] + 4 * j + half);
      memcpy(tiles[kSum][i] + 4 * j, &sum, sizeof(sum));
    }
}

#else

// Assembly, because compilers' intrinsics want literal tile numbers; "memory" orders it with the code around it.
// Tiles 0 to 5 (sums, left factors) get `rows` rows, 6 and 7 (right factors) all 16; every row has 64 bytes.
inline void configure(int rows) {
  struct {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  static_assert(sizeof(config) == 64);
  for (int tile = 0; tile < 8; ++tile) {
    config.bytes[tile] = kTileBytes;
    config.rows[tile] = uint8_t(tile < 6 ? rows : kTileRows);
  }
  asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
}
inline void release() { asm volatile("tilerelease" ::: "memory"); }
template <int kTile>
inline void zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile) : "memory");
}
template <int kTile>
inline void load(const void* first, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(first), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline void store(void* first, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(first), "r"(stride), "i"(kTile) : "memory");
}
// Rows of the left are 32 bfloat16, rows of the right 16 pairs of them: sum[i][j] += left[i][2k + h] * right[k][j][h]
template <int kSum, int kLeft, int kRight>
inline void add_product() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight) : "memory");
}

#endif

}  // namespace large_kernel_conv::amx
