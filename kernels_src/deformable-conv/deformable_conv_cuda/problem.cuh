// What the tensor-facing code hands to the kernels: plain numbers and pointers, passed by value.
#pragma once

#include "device.cuh"

namespace deformable_conv {

template <typename T>
struct Problem {
  int64_t batch;
  int32_t height, width, groups, channels;  // of value; channels of one group
  int32_t out_height, out_width, points;
  const T* value;        // (batch, height, width, groups, channels); the last two are contiguous
  int64_t image_stride;  // elements from one image of value to the next,
  int32_t pixel_stride;  // from one pixel to the next: a row is width pixels,
  int64_t right, below;  // and to a pixel's neighbours; zero where the image has one column or row
  const T* offset;       // (batch, out_height, out_width, groups, points, 2)
  PointStrides offset_strides;
  const T* weight;  // (batch, out_height, out_width, groups, points)
  PointStrides weight_strides;
  bool softmax;
  // Point k of the output at (row, column) samples value at
  //   x = column * stride_x + origin_x + (grid_x(k) + offset_x) * offset_scale, y alike;
  // points run column by column, without `removed_point`
  int32_t kernel_height, removed_point, dilation_x, dilation_y, centre_x, centre_y;
  float inverse_kernel_height;
  Compute<T> origin_x, origin_y, stride_x, stride_y, offset_scale;

  // Where point k lies, relative to the kernel's centre
  __device__ int32_t grid_x(int32_t k) const { return kernel_column(k) * dilation_x - centre_x; }
  __device__ int32_t grid_y(int32_t k) const {
    return (k + (k >= removed_point) - kernel_column(k) * kernel_height) * dilation_y - centre_y;
  }
  // exact for fewer than 2^22 points, and faster than a division
  __device__ int32_t kernel_column(int32_t k) const {
    return int32_t((float(k + (k >= removed_point)) + 0.5f) * inverse_kernel_height);
  }

  // A unit is one output pixel and group: what has samples of its own.
  __host__ __device__ uint32_t image_units() const { return uint32_t(out_height) * out_width * groups; }
};

template <typename T>
struct Gradients {
  const T* output;    // (batch, out_height, out_width, groups, channels), contiguous, as are those below
  Compute<T>* value;  // (batch, height, width, groups, channels), zeros to begin with
  T* offset;          // (batch, out_height, out_width, groups, points, 2)
  T* weight;          // (batch, out_height, out_width, groups, points)
};

}  // namespace deformable_conv
