// From tensors to the kernels.
#include "common/launch.cuh"
#include "detection_ops_operator/checks.h"
#include "detection_ops_operator/detection_ops.h"

#include "attention.cuh"
#include "roi_align.cuh"
#include "suppress.cuh"

namespace detection_ops {
namespace {

using torch::stable::accelerator::DeviceGuard;

// Zeros in which a gradient like `tensor`, of the shape `size`, is added up: in float32 at least, and rounded once
Tensor make_sums(const Tensor& tensor, const std::vector<int64_t>& size) {
  const bool is_double = tensor.scalar_type() == ScalarType::Double;
  return torch::stable::new_zeros(tensor, size, is_double ? ScalarType::Double : ScalarType::Float);
}
Tensor round_sums(const Tensor& sums, const Tensor& like) {
  return sums.scalar_type() == like.scalar_type() ? sums : torch::stable::to(sums, like.scalar_type());
}

// A thread for each piece of work
template <typename... Parameters, typename... Arguments>
void launch_threads(const char* name, void (*kernel)(Parameters...), int64_t threads, const Tensor& tensor,
                    Arguments... arguments) {
  const cudaError_t error =
      launch(kernel, (threads + kThreads - 1) / kThreads, kThreads, 0, current_stream(tensor), arguments...);
  check_launch(error, name, shape_of(sizes_of(tensor)));
}

template <typename T>
AttentionProblem<T> make_problem(const Attention& size, const std::vector<int64_t>& spatial_shapes, const Tensor& value,
                                 const Tensor& locations, const Tensor& weights) {
  STD_TORCH_CHECK(size.levels <= kMostLevels, "spatial_shapes: expected at most ", kMostLevels, " levels, got ",
                  size.levels);
  AttentionProblem<T> p{size.batch * size.queries * size.heads,
                        size.positions,
                        size.queries,
                        int32_t(size.heads),
                        int32_t(size.channels),
                        int32_t(size.levels),
                        int32_t(size.points),
                        numbers_of<T>(value),
                        numbers_of<T>(locations),
                        numbers_of<T>(weights),
                        {}};
  int32_t start = 0;
  for (int level = 0; level < p.levels; ++level) {
    p.level[level] = {int32_t(spatial_shapes[2 * level]), int32_t(spatial_shapes[2 * level + 1]), start};
    start += p.level[level].height * p.level[level].width;
  }
  return p;
}

template <typename T>
RoiProblem<T> make_problem(const std::vector<int64_t>& size, const FeatureStrides& strides, const Tensor& rois,
                           int64_t output_size, double spatial_scale) {
  using A = Compute<T>;
  return {size[0],         size[1], size[2], size[3], strides, rois.size(0), output_size, numbers_of<A>(rois),
          A(spatial_scale)};
}

}  // namespace
}  // namespace detection_ops

using namespace detection_ops;

Tensor deformable_attention_forward(const Tensor& value, const Tensor& sampling_locations,
                                    const Tensor& attention_weights, std::vector<int64_t> spatial_shapes) {
  const Attention size = check_attention(value, sampling_locations, attention_weights, spatial_shapes);
  const DeviceGuard guard(value.get_device_index());
  Tensor output = torch::stable::new_empty(value, {size.batch, size.queries, size.heads * size.channels});
  if (output.numel() == 0) return output;
  const Tensor values = torch::stable::contiguous(value), locations = torch::stable::contiguous(sampling_locations),
               weights = torch::stable::contiguous(attention_weights);
  dispatch_type("value", value, [&](auto zero) {
    using T = decltype(zero);
    launch_threads("deformable_attention_forward", &attend_kernel<T>, output.numel(), value,
                   make_problem<T>(size, spatial_shapes, values, locations, weights), mutable_numbers_of<T>(output));
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> deformable_attention_backward(const Tensor& grad_output, const Tensor& value,
                                                                 const Tensor& sampling_locations,
                                                                 const Tensor& attention_weights,
                                                                 std::vector<int64_t> spatial_shapes) {
  const Attention size = check_attention(value, sampling_locations, attention_weights, spatial_shapes);
  check_grad_output(grad_output, size, value);
  const DeviceGuard guard(value.get_device_index());
  Tensor sums = make_sums(value, sizes_of(value));
  Tensor grad_locations = torch::stable::new_empty(value, sizes_of(sampling_locations));
  Tensor grad_weights = torch::stable::new_empty(value, sizes_of(attention_weights));
  const Tensor gradient = torch::stable::contiguous(grad_output), values = torch::stable::contiguous(value),
               locations = torch::stable::contiguous(sampling_locations),
               weights = torch::stable::contiguous(attention_weights);
  const int64_t units = size.batch * size.queries * size.heads;
  if (units == 0) return {round_sums(sums, value), grad_locations, grad_weights};
  dispatch_type("value", value, [&](auto zero) {
    using T = decltype(zero);
    const AttentionGradients<T> gradients{numbers_of<T>(gradient), mutable_numbers_of<Compute<T>>(sums),
                                          mutable_numbers_of<T>(grad_locations), mutable_numbers_of<T>(grad_weights)};
    launch_threads("deformable_attention_backward", &attend_backward_kernel<T>, units * kWarpSize, value,
                   make_problem<T>(size, spatial_shapes, values, locations, weights), gradients);
  });
  return {round_sums(sums, value), grad_locations, grad_weights};
}

Tensor roi_align_forward(const Tensor& features, const Tensor& rois, int64_t output_size, double spatial_scale) {
  check_rois("features", features, rois, output_size);
  const DeviceGuard guard(features.get_device_index());
  Tensor output = torch::stable::new_empty(features, {rois.size(0), features.size(1), output_size, output_size});
  if (features.numel() == 0) return torch::stable::zero_(output);
  if (output.numel() == 0) return output;
  const Tensor regions = torch::stable::contiguous(rois);
  dispatch_type("features", features, [&](auto zero) {
    using T = decltype(zero);
    launch_threads("roi_align_forward", &roi_align_kernel<T>, output.numel(), features,
                   make_problem<T>(sizes_of(features), strides_of(features), regions, output_size, spatial_scale),
                   numbers_of<T>(features), mutable_numbers_of<T>(output));
  });
  return output;
}

Tensor roi_align_backward(const Tensor& grad_output, const Tensor& rois, std::vector<int64_t> size,
                          double spatial_scale) {
  const int64_t output_size = check_roi_gradient(grad_output, rois, size);
  const DeviceGuard guard(grad_output.get_device_index());
  Tensor sums = make_sums(grad_output, size);
  if (sums.numel() == 0 || grad_output.numel() == 0) return round_sums(sums, grad_output);
  const Tensor gradients = torch::stable::contiguous(grad_output), regions = torch::stable::contiguous(rois);
  dispatch_type("grad_output", grad_output, [&](auto zero) {
    using T = decltype(zero);
    launch_threads("roi_align_backward", &roi_align_backward_kernel<T>, grad_output.numel(), grad_output,
                   make_problem<T>(size, strides_of(sums), regions, output_size, spatial_scale),
                   numbers_of<T>(gradients), mutable_numbers_of<Compute<T>>(sums));
  });
  return round_sums(sums, grad_output);
}

Tensor suppress(const Tensor& boxes, const Tensor& groups, double iou_threshold) {
  check_boxes(boxes, groups);
  const DeviceGuard guard(boxes.get_device_index());
  Tensor stays = torch::stable::new_empty(boxes, {boxes.size(0)}, ScalarType::Bool);
  if (stays.numel() == 0) return stays;
  const int64_t words = (boxes.size(0) + 63) / 64;
  Tensor hits = torch::stable::new_empty(boxes, {boxes.size(0), words}, ScalarType::Long);
  const Tensor all = torch::stable::contiguous(boxes), of_each = torch::stable::contiguous(groups);
  const SuppressProblem problem{numbers_of<float>(all), numbers_of<int64_t>(of_each), boxes.size(0), words,
                                float(iou_threshold)};
  uint64_t* const bits = mutable_numbers_of<uint64_t>(hits);
  launch_threads("suppress", &overlap_kernel, hits.numel(), boxes, problem, bits);
  const cudaError_t error = launch(&sweep_kernel, 1, kThreads, int(words * sizeof(uint64_t)), current_stream(boxes),
                                   problem, static_cast<const uint64_t*>(bits), mutable_numbers_of<bool>(stays));
  check_launch(error, "suppress", shape_of(sizes_of(boxes)));
  return stays;
}
