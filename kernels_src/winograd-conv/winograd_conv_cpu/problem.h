// What the tensor-facing code hands to the compute paths: plain numbers and pointers, without code of their own (see
// common/types.h).
#pragma once

#include <cstdint>

namespace winograd_conv {

constexpr int kPoints = 16;  // products of a tile, a channel and a filter
// At most so many input channels and tiles are in work at a time: transformed, they fill most of the second-level cache.
constexpr int64_t kChannels = 256, kTiles = 48;
constexpr int64_t kRow = kChannels + 16;  // no power of two, so that rows do not share the sets of the caches

// A 3x3 convolution that keeps the size, of (batch, height, width, in_channels).
struct Convolution {
  int64_t batch, height, width, in_channels, out_channels;
  int64_t tile_rows, tile_columns;  // of an image
  int64_t blocks;                   // of tiles, of all images
  const float* input;
  const float* weight;  // (out_channels, in_channels, 9)
  const float* bias;    // null for none
  const float* zeros;   // kChannels of them: a pixel outside the image
  bool relu;
  float* output;
};

// Input channels [first, first + count), whose products are added to the output.
struct Chunk {
  int64_t first, count;
  float* weight;  // transformed: (panels of output channels, kPoints, count, channels of a panel)
};

// panel: output channels that are computed together; the last panel may have fewer.
// transform_weight: for panels [begin, end). convolve: blocks of tiles [begin, end).
#define DECLARE_PATH(path)                                                              \
  namespace path {                                                                      \
  int64_t panel();                                                                      \
  void transform_weight(const Convolution&, const Chunk&, int64_t begin, int64_t end); \
  void convolve(const Convolution&, const Chunk&, int64_t begin, int64_t end);          \
  }
DECLARE_PATH(portable)
DECLARE_PATH(avx2)
DECLARE_PATH(avx512)
#undef DECLARE_PATH

}  // namespace winograd_conv
