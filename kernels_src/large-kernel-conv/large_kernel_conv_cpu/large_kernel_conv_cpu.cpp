// From tensors to the compute paths: checks, strides, the split into tasks.
#include <algorithm>
#include <type_traits>

#include "common/cpu_path.h"
#include "large_kernel_conv_operator/checks.h"
#include "large_kernel_conv_operator/depthwise_conv2d.h"
#include "problem.h"

namespace large_kernel_conv {
namespace {

template <typename T>
struct Path {  // the functions of one path
  int64_t (*channel_block)();
  Convolve<T> convolve;
  void (*differentiate_weight)(const WeightGradient<T>&, int64_t, int64_t);
  void (*differentiate_bias)(const BiasGradient<T>&, int64_t, int64_t);

  int64_t blocks(const Geometry& g) const { return (g.channels + channel_block() - 1) / channel_block(); }
};

CpuPath choose_path() {
  static const CpuPaths paths("LARGE_KERNEL_CONV_CPU_PATH",
                              {CpuPath::amx, CpuPath::avx512_bf16, CpuPath::avx512, CpuPath::avx2, CpuPath::portable});
  return paths.choose();
}

template <typename T>
Path<T> path_of() {
  const CpuPath path = choose_path();
  Path<T> functions{ON_CPU_PATH(path, channel_block<T>), ON_CPU_PATH(path, convolve<T>),
                    ON_CPU_PATH(path, differentiate_weight<T>), ON_CPU_PATH(path, differentiate_bias<T>)};
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, BFloat16>)
    if (path == CpuPath::avx512_bf16) {  // its own tasks are those of avx512
      functions.convolve = avx512_bf16::convolve<T>;
      functions.differentiate_weight = avx512_bf16::differentiate_weight<T>;
    }
#endif
  return functions;
}

// Chunks of `rows` for each of `tasks`, so that every thread has work: four tasks a thread even out their differences.
int64_t chunks_for(int64_t tasks, int64_t rows) {
  const int64_t threads = torch::stable::get_num_threads();
  if (threads == 1 || tasks % threads == 0 || tasks >= 4 * threads) return 1;
  constexpr int64_t kLeastRows = 6;
  return std::clamp<int64_t>((4 * threads + tasks - 1) / tasks, 1, std::max<int64_t>(1, rows / kLeastRows));
}

// Convolutions of several images in one task read the kernel's tiles once, but the images should stay in the cache.
int64_t image_chunks_for(const Geometry& g) {
  constexpr int64_t kCacheBytes = 1 << 20;
  const int64_t image_bytes = (g.height + g.kernel_height) * (g.width + g.kernel_width) * 2 * amx::kChannelBlock;
  const int64_t blocks = (g.channels + amx::kChannelBlock - 1) / amx::kChannelBlock;
  const int64_t threads = torch::stable::get_num_threads();
  return std::clamp<int64_t>(std::max(g.batch * image_bytes / kCacheBytes, (threads + blocks - 1) / blocks), 1,
                             g.batch);
}

template <typename T>
void run_convolution(const Path<T>& path, Convolution<T> problem) {
  int64_t tasks = path.blocks(problem.size) * problem.size.batch;
  problem.chunks = chunks_for(tasks, problem.size.height);
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (choose_path() == CpuPath::amx) {
      problem.chunks = image_chunks_for(problem.size);
      tasks = (problem.size.channels + amx::kChannelBlock - 1) / amx::kChannelBlock;
      torch::stable::parallel_for(0, tasks * problem.chunks, 1, [&](int64_t begin, int64_t end) {
        amx::convolve(problem, begin, end, path.convolve);
      });
      return;
    }
  }
#endif
  torch::stable::parallel_for(0, tasks * problem.chunks, 1,
                              [&](int64_t begin, int64_t end) { path.convolve(problem, begin, end); });
}

}  // namespace
}  // namespace large_kernel_conv

using namespace large_kernel_conv;

Tensor depthwise_conv2d_forward(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias) {
  const Geometry size = check_forward(input, weight, bias);
  Tensor output = torch::stable::empty_like(input);
  std::optional<Tensor> numbers;
  if (bias) numbers = torch::stable::contiguous(*bias);
  if (output.numel() == 0) return output;
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    run_convolution<T>(path_of<T>(), {size, view_of<T>(input), weight_view_of<T>(weight),
                                      numbers ? static_cast<const T*>(numbers->const_data_ptr()) : nullptr,
                                      mutable_view_of<T>(output), 1});
  });
  return output;
}

Tensor depthwise_conv2d_backward_weight(const Tensor& grad_output, const Tensor& input,
                                        std::vector<int64_t> kernel_size) {
  const Geometry size = check_backward_weight(grad_output, input, kernel_size);
  Tensor grad_weight = torch::stable::new_empty(input, {size.channels, 1, size.kernel_height, size.kernel_width});
  if (input.numel() == 0) return torch::stable::zero_(grad_weight);
  dispatch_type("input", input, [&](auto zero) {
    using T = decltype(zero);
    const Path<T> path = path_of<T>();
    const int64_t tasks = path.blocks(size), chunks = chunks_for(tasks, size.kernel_height);
    View<T> gradient = mutable_view_of<T>(grad_weight);
    gradient.channel = gradient.image;
    const WeightGradient<T> problem{size, view_of<T>(grad_output), view_of<T>(input), gradient, chunks};
    torch::stable::parallel_for(0, tasks * chunks, 1,
                                [&](int64_t begin, int64_t end) { path.differentiate_weight(problem, begin, end); });
  });
  return grad_weight;
}

Tensor depthwise_conv2d_backward_bias(const Tensor& grad_output) {
  const Geometry size = geometry_of("grad_output", grad_output, {1, 1});
  Tensor grad_bias = torch::stable::new_empty(grad_output, {size.channels});
  if (grad_output.numel() == 0) return torch::stable::zero_(grad_bias);
  dispatch_type("grad_output", grad_output, [&](auto zero) {
    using T = decltype(zero);
    const Path<T> path = path_of<T>();
    const BiasGradient<T> problem{size, view_of<T>(grad_output), static_cast<T*>(grad_bias.mutable_data_ptr())};
    torch::stable::parallel_for(0, path.blocks(size), 1,
                                [&](int64_t begin, int64_t end) { path.differentiate_bias(problem, begin, end); });
  });
  return grad_bias;
}

std::string cpu_path() { return name_of(choose_path()); }
