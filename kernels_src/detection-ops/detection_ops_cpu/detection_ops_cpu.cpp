// From tensors to the compute paths: tables, the split into tasks.
#include <algorithm>

#include "common/cpu_path.h"
#include "detection_ops_operator/checks.h"
#include "detection_ops_operator/detection_ops.h"
#include "problem.h"

namespace detection_ops {
namespace {

CpuPath choose_path() {
  static const CpuPaths paths("DETECTION_OPS_CPU_PATH", {CpuPath::avx512, CpuPath::avx2, CpuPath::portable});
  return paths.choose();
}

// For each point of a unit: the size of its level, and where that starts among the positions
template <typename A>
struct Levels {
  std::vector<A> width, height, start;

  Levels(const std::vector<int64_t>& spatial_shapes, int64_t points) {
    const size_t padded = (spatial_shapes.size() / 2 * points + kMostLanes - 1) / kMostLanes * kMostLanes;
    int64_t positions = 0;
    for (size_t level = 0; level < spatial_shapes.size(); level += 2) {
      height.insert(height.end(), points, A(spatial_shapes[level]));
      width.insert(width.end(), points, A(spatial_shapes[level + 1]));
      start.insert(start.end(), points, A(positions));
      positions += spatial_shapes[level] * spatial_shapes[level + 1];
    }
    for (auto* numbers : {&width, &height, &start}) numbers->resize(padded);
  }

 private:
  static constexpr size_t kMostLanes = 16;
};

template <typename T>
AttentionProblem<T> make_problem(const Attention& size, const Levels<Compute<T>>& levels, const Tensor& value,
                                 const Tensor& locations, const Tensor& weights) {
  return {size.batch,
          size.positions,
          size.queries,
          size.heads,
          size.channels,
          size.levels * size.points,
          numbers_of<T>(value),
          numbers_of<T>(locations),
          numbers_of<T>(weights),
          levels.width.data(),
          levels.height.data(),
          levels.start.data()};
}

// Every region must name an image that there is.
template <typename T>
RoiProblem<T> make_problem(const std::vector<int64_t>& features, const Tensor& rois, int64_t output_size,
                           double spatial_scale) {
  using A = Compute<T>;
  const A* const numbers = numbers_of<A>(rois);
  for (int64_t i = 0; i < rois.size(0); ++i)
    STD_TORCH_CHECK(numbers[5 * i] >= 0 && numbers[5 * i] < A(features[0]), "rois: expected images 0 to ",
                    features[0] - 1, ", got ", numbers[5 * i]);
  return {features[0], features[1], features[2], features[3], {}, rois.size(0), output_size, numbers, A(spatial_scale)};
}

// The numbers of the boxes group by group, in their order
struct Groups {
  std::vector<int64_t> members, first;

  explicit Groups(const Tensor& groups) : members(groups.size(0)) {
    const int64_t* const group = numbers_of<int64_t>(groups);
    for (size_t i = 0; i < members.size(); ++i) members[i] = int64_t(i);
    std::stable_sort(members.begin(), members.end(), [&](int64_t a, int64_t b) { return group[a] < group[b]; });
    for (size_t i = 0; i < members.size(); ++i)
      if (!i || group[members[i]] != group[members[i - 1]]) first.push_back(int64_t(i));
    first.push_back(int64_t(members.size()));
  }
  int64_t count() const { return int64_t(first.size()) - 1; }
};

}  // namespace
}  // namespace detection_ops

using namespace detection_ops;

Tensor deformable_attention_forward(const Tensor& value, const Tensor& sampling_locations,
                                    const Tensor& attention_weights, std::vector<int64_t> spatial_shapes) {
  const Attention size = check_attention(value, sampling_locations, attention_weights, spatial_shapes);
  Tensor output = torch::stable::new_empty(value, {size.batch, size.queries, size.heads * size.channels});
  if (output.numel() == 0) return output;
  const Tensor values = torch::stable::contiguous(value), locations = torch::stable::contiguous(sampling_locations),
               weights = torch::stable::contiguous(attention_weights);
  const CpuPath path = choose_path();
  dispatch_type("value", value, [&](auto zero) {
    using T = decltype(zero);
    const Levels<Compute<T>> levels(spatial_shapes, size.points);
    const AttentionProblem<T> problem = make_problem<T>(size, levels, values, locations, weights);
    const int64_t grain = std::max<int64_t>(1, 128 / size.heads);  // units that take some 10 microseconds
    const auto attend = ON_CPU_PATH(path, attend<T>);
    torch::stable::parallel_for(0, size.batch * size.queries, grain, [&](int64_t begin, int64_t end) {
      attend(problem, mutable_numbers_of<T>(output), begin, end);
    });
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> deformable_attention_backward(const Tensor& grad_output, const Tensor& value,
                                                                 const Tensor& sampling_locations,
                                                                 const Tensor& attention_weights,
                                                                 std::vector<int64_t> spatial_shapes) {
  const Attention size = check_attention(value, sampling_locations, attention_weights, spatial_shapes);
  check_grad_output(grad_output, size, value);
  Tensor grad_value = torch::stable::new_empty(value, sizes_of(value));
  Tensor grad_locations = torch::stable::new_empty(value, sizes_of(sampling_locations));
  Tensor grad_weights = torch::stable::new_empty(value, sizes_of(attention_weights));
  const Tensor gradient = torch::stable::contiguous(grad_output), values = torch::stable::contiguous(value),
               locations = torch::stable::contiguous(sampling_locations),
               weights = torch::stable::contiguous(attention_weights);
  const CpuPath path = choose_path();
  dispatch_type("value", value, [&](auto zero) {
    using T = decltype(zero);
    const Levels<Compute<T>> levels(spatial_shapes, size.points);
    const AttentionProblem<T> problem = make_problem<T>(size, levels, values, locations, weights);
    const AttentionGradients<T> gradients{numbers_of<T>(gradient), mutable_numbers_of<T>(grad_value),
                                          mutable_numbers_of<T>(grad_locations), mutable_numbers_of<T>(grad_weights)};
    const auto backward = ON_CPU_PATH(path, attend_backward<T>);
    torch::stable::parallel_for(0, size.batch * size.heads, 1,
                                [&](int64_t begin, int64_t end) { backward(problem, gradients, begin, end); });
  });
  return {grad_value, grad_locations, grad_weights};
}

Tensor roi_align_forward(const Tensor& features, const Tensor& rois, int64_t output_size, double spatial_scale) {
  check_rois("features", features, rois, output_size);
  Tensor output = torch::stable::new_empty(features, {rois.size(0), features.size(1), output_size, output_size});
  if (features.numel() == 0) return torch::stable::zero_(output);
  if (output.numel() == 0) return output;
  const Tensor regions = torch::stable::contiguous(rois);
  const CpuPath path = choose_path();
  dispatch_type("features", features, [&](auto zero) {
    using T = decltype(zero);
    RoiProblem<T> problem = make_problem<T>(sizes_of(features), regions, output_size, spatial_scale);
    problem.strides = strides_of(features);
    const auto roi_align = ON_CPU_PATH(path, roi_align<T>);
    torch::stable::parallel_for(0, problem.count, 1, [&](int64_t begin, int64_t end) {
      roi_align(problem, numbers_of<T>(features), mutable_numbers_of<T>(output), begin, end);
    });
  });
  return output;
}

Tensor roi_align_backward(const Tensor& grad_output, const Tensor& rois, std::vector<int64_t> size,
                          double spatial_scale) {
  const int64_t output_size = check_roi_gradient(grad_output, rois, size);
  Tensor gradient = torch::stable::new_empty(grad_output, size);
  if (gradient.numel() == 0) return gradient;
  const Tensor gradients = torch::stable::contiguous(grad_output), regions = torch::stable::contiguous(rois);
  const CpuPath path = choose_path();
  dispatch_type("grad_output", grad_output, [&](auto zero) {
    using T = decltype(zero);
    const RoiProblem<T> problem = make_problem<T>(size, regions, output_size, spatial_scale);
    const int64_t blocks = (problem.channels + kBlock - 1) / kBlock;
    const auto backward = ON_CPU_PATH(path, roi_align_backward<T>);
    torch::stable::parallel_for(0, problem.images * blocks, 1, [&](int64_t begin, int64_t end) {
      backward(problem, numbers_of<T>(gradients), mutable_numbers_of<T>(gradient), begin, end);
    });
  });
  return gradient;
}

Tensor suppress(const Tensor& boxes, const Tensor& groups, double iou_threshold) {
  check_boxes(boxes, groups);
  Tensor stays = torch::stable::new_empty(boxes, {boxes.size(0)}, ScalarType::Bool);
  const Tensor all = torch::stable::contiguous(boxes);
  const Groups by_group(torch::stable::contiguous(groups));
  const SuppressProblem problem{numbers_of<float>(all), by_group.members.data(), by_group.first.data(),
                                float(iou_threshold), mutable_numbers_of<bool>(stays)};
  const auto suppress = ON_CPU_PATH(choose_path(), suppress);
  torch::stable::parallel_for(0, by_group.count(), 1,
                              [&](int64_t begin, int64_t end) { suppress(problem, begin, end); });
  return stays;
}

std::string cpu_path() { return name_of(choose_path()); }
