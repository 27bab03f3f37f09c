// What every backend asks of its arguments, and how it reads them.
#pragma once

#include <cstdint>
#include <vector>

#include "common/checks.h"
#include "types.h"

namespace detection_ops {

constexpr int64_t kMostPositions = 1 << 24;  // they are counted in float32

struct Attention {  // sizes
  int64_t batch, positions, queries, heads, channels, levels, points;
};

inline Attention check_attention(const Tensor& value, const Tensor& locations, const Tensor& weights,
                                 const std::vector<int64_t>& spatial_shapes) {
  STD_TORCH_CHECK(value.dim() == 4, "value: expected (N, S, heads, channels), got ", shape_of(sizes_of(value)));
  STD_TORCH_CHECK(locations.dim() == 6, "sampling_locations: expected (N, Q, heads, levels, points, 2), got ",
                  shape_of(sizes_of(locations)));
  for (int64_t side : spatial_shapes)  // none whose product with another overflows
    STD_TORCH_CHECK(side >= 0 && side < kMostPositions, "spatial_shapes: expected 0 to 2^24, got ", side);
  const int64_t levels = int64_t(spatial_shapes.size() / 2);
  int64_t positions = 0;
  for (int64_t level = 0; level < levels; ++level)
    positions += spatial_shapes[2 * level] * spatial_shapes[2 * level + 1];
  STD_TORCH_CHECK(spatial_shapes.size() % 2 == 0 && positions == value.size(1), "spatial_shapes: expected ",
                  value.size(1), " positions like value, got ", positions);
  const Attention size{value.size(0), positions, locations.size(1), value.size(2),
                       value.size(3), levels,    locations.size(4)};
  check_shape("sampling_locations", locations, {size.batch, size.queries, size.heads, levels, size.points, 2});
  check_shape("attention_weights", weights, {size.batch, size.queries, size.heads, levels, size.points});
  check_like("sampling_locations", locations, "value", value);
  check_like("attention_weights", weights, "value", value);
  STD_TORCH_CHECK(positions < kMostPositions, "value: expected fewer than 2^24 positions in an image, got ", positions);
  return size;
}

inline void check_grad_output(const Tensor& grad_output, const Attention& size, const Tensor& value) {
  check_shape("grad_output", grad_output, {size.batch, size.queries, size.heads * size.channels});
  check_like("grad_output", grad_output, "value", value);
}

inline void check_rois(const char* name, const Tensor& features, const Tensor& rois, int64_t output_size) {
  STD_TORCH_CHECK(features.dim() == 4, name, ": expected four axes, got ", shape_of(sizes_of(features)));
  STD_TORCH_CHECK(rois.dim() == 2 && rois.size(1) == 5, "rois: expected (R, 5), got ", shape_of(sizes_of(rois)));
  STD_TORCH_CHECK(output_size > 0, "output_size: expected at least 1, got ", output_size);
  const bool is_double = features.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(rois.scalar_type() == (is_double ? ScalarType::Double : ScalarType::Float),
                  "rois: expected float32, or float64 where ", name, " is in it");
  STD_TORCH_CHECK(device_of(rois) == device_of(features), "rois: expected to be on ", device_of(features), " like ",
                  name, ", got ", device_of(rois));
}

// `size` is that of the features. Returns the number of bins of a side.
inline int64_t check_roi_gradient(const Tensor& grad_output, const Tensor& rois, const std::vector<int64_t>& size) {
  const int64_t output_size = grad_output.dim() == 4 ? grad_output.size(3) : 1;
  check_rois("grad_output", grad_output, rois, output_size);
  STD_TORCH_CHECK(size.size() == 4, "size: expected (N, C, H, W), got ", shape_of(size));
  check_shape("grad_output", grad_output, {rois.size(0), size[1], output_size, output_size});
  return output_size;
}

inline void check_boxes(const Tensor& boxes, const Tensor& groups) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, "boxes: expected (M, 4), got ", shape_of(sizes_of(boxes)));
  STD_TORCH_CHECK(boxes.scalar_type() == ScalarType::Float, "boxes: expected float32");
  check_shape("groups", groups, {boxes.size(0)});
  STD_TORCH_CHECK(groups.scalar_type() == ScalarType::Long, "groups: expected int64");
  STD_TORCH_CHECK(device_of(groups) == device_of(boxes), "groups: expected to be on ", device_of(boxes),
                  " like boxes, got ", device_of(groups));
}

template <typename T>
const T* numbers_of(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
T* mutable_numbers_of(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

inline FeatureStrides strides_of(const Tensor& features) {
  return {features.stride(0), features.stride(1), features.stride(2), features.stride(3)};
}

}  // namespace detection_ops
