// From tensors to the compute paths: the sampling grid, the split into tasks.
#include <algorithm>

#include "common/cpu_path.h"
#include "deformable_conv_operator/checks.h"
#include "deformable_conv_operator/deformable_aggregate.h"
#include "problem.h"

namespace deformable_conv {
namespace {

template <typename A>
struct Grid {  // positions of the points relative to the kernel's centre, column by column
  std::vector<A> x, y;
  explicit Grid(const Geometry& g) {
    const int64_t centre = g.kernel_size[0] * g.kernel_size[1] / 2;
    for (int64_t point = 0; point < g.kernel_size[0] * g.kernel_size[1]; ++point) {
      if (g.remove_center && point == centre) continue;
      x.push_back(A(point / g.kernel_size[0] * g.dilation[1] - g.centre(1)));
      y.push_back(A(point % g.kernel_size[0] * g.dilation[0] - g.centre(0)));
    }
    x.resize((x.size() + 15) / 16 * 16);
    y.resize(x.size());
  }
};

template <typename T>
Problem<T> make_problem(const Tensor& value, const Tensor& offset, const Tensor& weight, const Geometry& g,
                        const Grid<Compute<T>>& grid) {
  using A = Compute<T>;
  Problem<T> p{};
  p.batch = value.size(0), p.height = value.size(1), p.width = value.size(2);
  p.groups = value.size(3), p.channels = value.size(4);
  p.out_height = offset.size(1), p.out_width = offset.size(2), p.points = g.points();
  p.value = static_cast<const T*>(value.const_data_ptr());
  p.image_stride = value.stride(0), p.pixel_stride = value.size(2) > 1 ? value.stride(2) : value.stride(1);
  p.offset = static_cast<const T*>(offset.const_data_ptr()), p.offset_strides = strides_of(offset);
  p.weight = static_cast<const T*>(weight.const_data_ptr()), p.weight_strides = strides_of(weight);
  p.softmax = g.softmax;
  p.grid_x = grid.x.data(), p.grid_y = grid.y.data();
  p.origin_x = A(g.centre(1) - g.padding[1]), p.origin_y = A(g.centre(0) - g.padding[0]);
  p.stride_x = A(g.stride[1]), p.stride_y = A(g.stride[0]), p.offset_scale = A(g.offset_scale);
  return p;
}

CpuPath choose_path() {
  static const CpuPaths paths("DEFORMABLE_CONV_CPU_PATH", {CpuPath::avx512, CpuPath::avx2, CpuPath::portable});
  return paths.choose();
}

}  // namespace
}  // namespace deformable_conv

using namespace deformable_conv;

Tensor deformable_aggregate_forward(const Tensor& value, const Tensor& offset, const Tensor& weight,
                                    std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                                    std::vector<int64_t> padding, std::vector<int64_t> dilation, double offset_scale,
                                    bool remove_center, bool softmax) {
  const Geometry geometry{kernel_size, stride, padding, dilation, offset_scale, remove_center, softmax};
  const std::vector<int64_t> expected = check(value, offset, weight, geometry);
  Tensor output =
      torch::stable::new_empty(value, {expected[0], expected[1], expected[2], value.size(3) * value.size(4)});
  if (output.numel() == 0) return output;
  if (value.numel() == 0 || geometry.points() == 0) return torch::stable::zero_(output);

  const Tensor regular = with_regular_pixels(value);
  const Tensor offsets = with_contiguous_points(offset), weights = with_contiguous_points(weight);
  const CpuPath path = choose_path();
  dispatch_type("value", value, [&](auto zero) {
    using T = decltype(zero);
    const Grid<Compute<T>> grid(geometry);
    const Problem<T> problem = make_problem<T>(regular, offsets, weights, geometry, grid);
    T* out = static_cast<T*>(output.mutable_data_ptr());
    // a task of some 256 units takes some 10 microseconds, about what it costs to wake a thread
    const int64_t grain = std::max<int64_t>(1, 256 / problem.groups);
    const auto forward = ON_CPU_PATH(path, forward<T>);
    torch::stable::parallel_for(0, problem.batch * problem.out_height * problem.out_width, grain,
                                [&](int64_t begin, int64_t end) { forward(problem, out, begin, end); });
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> deformable_aggregate_backward(
    const Tensor& grad_output, const Tensor& value, const Tensor& offset, const Tensor& weight,
    std::vector<int64_t> kernel_size, std::vector<int64_t> stride, std::vector<int64_t> padding,
    std::vector<int64_t> dilation, double offset_scale, bool remove_center, bool softmax,
    bool /* deterministic: it always is */) {
  const Geometry geometry{kernel_size, stride, padding, dilation, offset_scale, remove_center, softmax};
  const std::vector<int64_t> expected = check(value, offset, weight, geometry);
  check_grad_output(grad_output, value, expected);
  Tensor grad_value = torch::stable::new_empty(value, sizes_of(value));
  Tensor grad_offset = torch::stable::new_empty(offset, sizes_of(offset));
  Tensor grad_weight = torch::stable::new_empty(weight, sizes_of(weight));
  if (value.numel() == 0 || weight.numel() == 0) {
    for (Tensor* gradient : {&grad_value, &grad_offset, &grad_weight}) torch::stable::zero_(*gradient);
    return {grad_value, grad_offset, grad_weight};
  }

  const Tensor gradient = torch::stable::contiguous(grad_output), regular = with_regular_pixels(value);
  const Tensor offsets = with_contiguous_points(offset), weights = with_contiguous_points(weight);
  const CpuPath path = choose_path();
  dispatch_type("value", value, [&](auto zero) {
    using T = decltype(zero);
    const Grid<Compute<T>> grid(geometry);
    const Problem<T> problem = make_problem<T>(regular, offsets, weights, geometry, grid);
    Gradients<T> gradients{
        static_cast<const T*>(gradient.const_data_ptr()), static_cast<T*>(grad_value.mutable_data_ptr()),
        static_cast<T*>(grad_offset.mutable_data_ptr()), static_cast<T*>(grad_weight.mutable_data_ptr()), 4};
    // four groups at a time are fastest; fewer where there would be fewer tasks than threads
    const int64_t threads = torch::stable::get_num_threads();
    const auto blocks = [&] { return (problem.groups + gradients.group_block - 1) / gradients.group_block; };
    while (gradients.group_block > 1 && problem.batch * blocks() < threads) gradients.group_block /= 2;
    const auto backward = ON_CPU_PATH(path, backward<T>);
    torch::stable::parallel_for(0, problem.batch * blocks(), 1,
                                [&](int64_t begin, int64_t end) { backward(problem, gradients, begin, end); });
  });
  return {grad_value, grad_offset, grad_weight};
}

std::string cpu_path() { return name_of(choose_path()); }
