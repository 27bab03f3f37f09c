// From tensors to the compute paths: checks, memory, the split into tasks.
#include <algorithm>
#include <vector>

#include "common/checks.h"
#include "common/cpu_path.h"
#include "problem.h"
#include "winograd_conv_operator/conv3x3.h"

using namespace common;
using namespace winograd_conv;

namespace {

void check_float(const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, name, ": expected float32");
}

Tensor in_order(const Tensor& tensor) { return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor); }

const float* data(const Tensor& tensor) { return static_cast<const float*>(tensor.const_data_ptr()); }
float* data(Tensor& tensor) { return static_cast<float*>(tensor.mutable_data_ptr()); }

int64_t divide_up(int64_t number, int64_t by) { return (number + by - 1) / by; }

// Blocks of at most kTiles, as many for each thread, where there are enough tiles for that to matter.
int64_t blocks_of(int64_t tiles) {
  const int64_t threads = torch::stable::get_num_threads();
  return std::min(tiles, divide_up(tiles, kTiles * threads) * threads);
}

CpuPath choose_path() {
  static const CpuPaths paths("WINOGRAD_CONV_CPU_PATH", {CpuPath::avx512, CpuPath::avx2, CpuPath::portable});
  return paths.choose();
}

}  // namespace

Tensor conv3x3(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, bool relu) {
  STD_TORCH_CHECK(input.dim() == 4, "input: expected (N, H, W, C), got ", shape_of(sizes_of(input)));
  STD_TORCH_CHECK(weight.dim() == 4, "weight: expected (O, C, 3, 3), got ", shape_of(sizes_of(weight)));
  const int64_t in_channels = input.size(3), out_channels = weight.size(0);
  check_shape("weight", weight, {out_channels, in_channels, 3, 3});
  check_float("input", input);
  check_like("weight", weight, "input", input);
  if (bias) {
    check_shape("bias", *bias, {out_channels});
    check_like("bias", *bias, "input", input);
  }
  STD_TORCH_CHECK(in_channels > 0, "input: expected channels, got ", shape_of(sizes_of(input)));
  Tensor output = torch::stable::new_empty(input, {input.size(0), input.size(1), input.size(2), out_channels});
  if (output.numel() == 0) return output;

  const Tensor pixels = in_order(input), filters = in_order(weight);
  std::optional<Tensor> summands;
  if (bias) summands = in_order(*bias);
  const std::vector<float> zeros(kChannels);
  Convolution problem{input.size(0), input.size(1), input.size(2), in_channels, out_channels};
  problem.tile_rows = divide_up(problem.height, 2), problem.tile_columns = divide_up(problem.width, 2);
  problem.blocks = blocks_of(problem.batch * problem.tile_rows * problem.tile_columns);
  problem.input = data(pixels), problem.weight = data(filters), problem.bias = summands ? data(*summands) : nullptr;
  problem.zeros = zeros.data(), problem.relu = relu, problem.output = data(output);

  const CpuPath path = choose_path();
  const int64_t panel = ON_CPU_PATH(path, panel)(), panels = divide_up(out_channels, panel);
  const int64_t at_once = divide_up(in_channels, divide_up(in_channels, kChannels));
  Tensor transformed = torch::stable::new_empty(input, {panels * kPoints * at_once * panel});
  for (int64_t first = 0; first < in_channels; first += at_once) {
    const Chunk chunk{first, std::min(at_once, in_channels - first), data(transformed)};
    torch::stable::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
      ON_CPU_PATH(path, transform_weight)(problem, chunk, begin, end);
    });
    torch::stable::parallel_for(0, problem.blocks, 1, [&](int64_t begin, int64_t end) {
      ON_CPU_PATH(path, convolve)(problem, chunk, begin, end);
    });
  }
  return output;
}

std::string cpu_path() { return name_of(choose_path()); }
