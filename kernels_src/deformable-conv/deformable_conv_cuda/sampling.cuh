// Where the samples of a unit lie and how much of them each pixel gets.
//
// The four pixels around a sample always form a 2x2 cell inside the image: the cell is clamped, and a pixel of it that
// is no neighbour of the sample is marked as missing. Loads need no branch at the border; where a missing pixel is not
// finite, the mark tells (see forward.cuh).
#pragma once

#include "device.cuh"
#include "problem.cuh"

namespace deformable_conv {

// The share of a missing pixel is minus zero, which no pixel that exists has.
template <typename A>
__device__ bool is_missing(A share) {
  return share == 0 && signbit(share);
}

// Points of a unit located at a time: what shared memory holds. Odd numbers keep tiles in different banks.
template <typename A>
__host__ __device__ constexpr int capacity(int points) {
  constexpr int kMost = sizeof(A) == 8 ? 7 : 15;
  return points < kMost ? points | 1 : kMost;
}

constexpr int kTogether = 3;  // points of a lane whose loads wait for memory together

template <typename T>
struct Unit {
  using A = Compute<T>;
  uint32_t image, group;
  int64_t index;  // in (batch, out_height, out_width, groups)
  const T* offset;
  const T* weight;
  const T* value;  // the unit's group in the image's first pixel
  A x, y;          // origin of the sampling grid

  // `unit` counts the image's units.
  __device__ Unit(const Problem<T>& p, uint32_t image, uint32_t unit) : image(image), group(unit % p.groups) {
    const uint32_t pixel = unit / p.groups;
    const uint32_t row = pixel / p.out_width, column = pixel - row * p.out_width;
    const auto start = [&](const PointStrides& s) {
      return image * s.image + row * s.row + column * s.column + group * s.group;
    };
    index = int64_t(image) * p.out_height * p.out_width * p.groups + unit;
    offset = p.offset + start(p.offset_strides);
    weight = p.weight + start(p.weight_strides);
    value = p.value + image * p.image_stride + int64_t(group) * p.channels;
    x = A(column) * p.stride_x + p.origin_x;
    y = A(row) * p.stride_y + p.origin_y;
  }
};

// Blocks of one image. Each image has blocks of its own, so that no result depends on what else is in the batch.
template <typename T>
__host__ __device__ uint32_t image_blocks(const Problem<T>& p, int tiles) {
  return (p.image_units() + tiles - 1) / tiles;
}

// The unit of a tile
template <typename T>
struct TileUnit : Unit<T> {
  bool exists;  // a tile without a unit does what the image's last one does, and writes nothing

  __device__ TileUnit(const Problem<T>& p, const Tile& tile)
      : TileUnit(p, tile, image_blocks(p, tile.meta_group_size())) {}

 private:
  __device__ TileUnit(const Problem<T>& p, const Tile& tile, uint32_t blocks)
      : TileUnit(p, blockIdx.x / blocks, blockIdx.x % blocks * tile.meta_group_size() + tile.meta_group_rank) {}
  __device__ TileUnit(const Problem<T>& p, uint32_t image, uint32_t unit)
      : Unit<T>(p, image, min(unit, p.image_units() - 1)), exists(unit < p.image_units()) {}
};

// Weights as they are, or their softmax over the points
template <typename T>
struct Weights {
  using A = Compute<T>;
  const T* weight;
  bool softmax;
  A shift = 0, factor = 1;

  // The lanes of `tile` share the work; without a tile a lane does it alone.
  __device__ Weights(const Problem<T>& p, const Unit<T>& unit, const Tile* tile)
      : weight(unit.weight), softmax(p.softmax) {
    if (!softmax) return;
    const int first = tile ? tile->thread_rank : 0, step = tile ? tile->num_threads : 1;
    shift = -INFINITY;
    for_points(first, step, p.points, [&](A x) { shift = fmax(shift, x); });
    if (tile) shift = tile->max(shift);
    A total = 0;
    for_points(first, step, p.points, [&](A x) { total += exp(x - shift); });
    if (tile) total = tile->sum(total);
    factor = 1 / total;
  }
  __device__ A operator()(T x) const { return softmax ? exp(widen(x) - shift) * factor : widen(x); }
  __device__ A operator[](int k) const { return (*this)(weight[k]); }

 private:
  template <typename F>
  __device__ void for_points(int first, int step, int points, F f) const {
    for (int k = first; k < points; k += kTogether * step) {
      A x[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) x[i] = k + i * step < points ? widen(weight[k + i * step]) : A(-INFINITY);
#pragma unroll
      for (int i = 0; i < kTogether; ++i) f(x[i]);
    }
  }
};

// A sample on one axis of the image: a cell of two pixels, and the hat function max(0, 1 - distance) at each
template <typename A>
struct Place {
  int32_t cell;
  A share[2], slope[2];
  bool has[2];  // whether the pixel exists and is a neighbour of the sample; none for a position that is not finite

  __device__ Place(A position, int32_t size) {
    const int32_t last = size > 1 ? size - 2 : 0;
    const A whole = floor(position);
    cell = int32_t(fmin(fmax(whole, A(0)), A(last)));
    if (cell > last) cell = last;  // A(last) may be rounded up
    const A distance = position - A(cell), ahead = whole - A(cell);
    share[0] = fmax(1 - fabs(distance), A(0));
    share[1] = fmax(fmin(distance, 2 - distance), A(0));
    has[0] = position > -1 && (ahead == 0 || ahead == -1);
    has[1] = size > 1 && (ahead == 0 || ahead == 1);
    slope[0] = ahead == 0 ? -1 : 1;  // on the right of the position
    slope[1] = ahead == 0 ? 1 : -1;
  }
};

template <typename T>
struct Sample {
  using A = Compute<T>;
  Place<A> x, y;

  __device__ Sample(const Problem<T>& p, const Unit<T>& unit, int k, T offset_x, T offset_y)
      : x(fma(widen(offset_x) + A(p.grid_x(k)), p.offset_scale, unit.x), p.width),
        y(fma(widen(offset_y) + A(p.grid_y(k)), p.offset_scale, unit.y), p.height) {}
  __device__ Sample(const Problem<T>& p, const Unit<T>& unit, int k)
      : Sample(p, unit, k, unit.offset[2 * k], unit.offset[2 * k + 1]) {}

  __device__ int32_t cell(const Problem<T>& p) const { return y.cell * p.width + x.cell; }
  __device__ bool has(int corner) const { return x.has[corner % 2] && y.has[corner / 2]; }
  __device__ A share(int corner, A weight) const {
    return has(corner) ? x.share[corner % 2] * y.share[corner / 2] * weight + A(0) : A(-0.0);  // -0 + 0 is 0
  }
};

// What a tile keeps of its samples in shared memory
template <typename A>
struct Samples {
  struct alignas(16) Shares {
    A corner[4];  // top left, top right, bottom left, bottom right, times the sample's weight
  };
  Shares* shares;
  int32_t* cells;  // number of the top left pixel
  A* dots;         // the backward pass's: 4 for each sample

  static constexpr int bytes(bool with_dots) { return sizeof(Shares) * (with_dots ? 2 : 1) + sizeof(int32_t); }

  __device__ Samples(const Tile& tile, int capacity) {
    const int tiles = tile.meta_group_size(), mine = tile.meta_group_rank * capacity;
    Shares* const first = reinterpret_cast<Shares*>(shared_memory());
    int32_t* const first_cell = reinterpret_cast<int32_t*>(first + tiles * capacity);
    shares = first + mine;
    cells = first_cell + mine;
    dots = reinterpret_cast<A*>(first_cell + tiles * capacity) + mine * 4;
  }

  // The points [first, first + count), each by one lane
  template <typename T>
  __device__ void locate(const Problem<T>& p, const Unit<T>& unit, const Weights<T>& weights, const Tile& tile,
                         int first, int count) const {
    __syncwarp();  // the samples before these have been read
    for (int start = tile.thread_rank; start < count; start += kTogether * tile.num_threads) {
      T x[kTogether], y[kTogether], weight[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const int k = start + i * tile.num_threads;
        if (k >= count) continue;
        x[i] = unit.offset[2 * (first + k)];
        y[i] = unit.offset[2 * (first + k) + 1];
        weight[i] = unit.weight[first + k];
      }
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const int k = start + i * tile.num_threads;
        if (k >= count) continue;
        const Sample<T> sample(p, unit, first + k, x[i], y[i]);
        const A normalised = weights(weight[i]);
        Shares shared;
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) shared.corner[corner] = sample.share(corner, normalised);
        shares[k] = shared;
        cells[k] = sample.cell(p);
      }
    }
    __syncwarp();
  }
};

}  // namespace deformable_conv
