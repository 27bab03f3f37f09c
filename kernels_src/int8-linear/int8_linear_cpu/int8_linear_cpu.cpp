// From tensors to the compute paths: checks, memory, the split into tasks.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "common/checks.h"
#include "common/cpu_path.h"
#include "int8_linear_operator/int8_linear.h"
#include "problem.h"

#if defined(__x86_64__)
#define ON_PATH(PATH, ...)                                    \
  ((PATH) == CpuPath::avx512_bf16 ? &avx512_bf16::__VA_ARGS__   \
   : (PATH) == CpuPath::avx512_vnni ? &avx512_vnni::__VA_ARGS__ \
                                    : &portable::__VA_ARGS__)
#else
#define ON_PATH(PATH, ...) (&portable::__VA_ARGS__)
#endif

namespace int8_linear {
namespace {

constexpr int64_t kTask = 1 << 21;  // products; they take some 10 microseconds, about what it costs to wake a thread

// The tensor itself where its numbers lie in order: asking PyTorch for a copy costs time even where it makes none.
Tensor in_order(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

void check_type(const std::string& name, const Tensor& tensor, ScalarType type, const char* type_name) {
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.scalar_type() == type, name, ": expected ", type_name, " on a CPU");
}

// A layer, and the tensors in order that it points to.
struct Weights {
  Tensor panels, scale;
  std::optional<Tensor> bias;
  Layer layer;

  Weights(const std::string& number, int64_t inputs, double scale_of_input, int64_t zero_point, const Tensor& weight,
          const Tensor& weight_scale, const std::optional<Tensor>& weight_bias)
      : panels(in_order(weight)), scale(in_order(weight_scale)) {
    check_type("weight" + number, weight, ScalarType::Char, "int8");
    check_type("weight_scale" + number, weight_scale, ScalarType::Float, "float32");
    STD_TORCH_CHECK(weight_scale.dim() == 1, "weight_scale", number, ": expected (outputs), got ",
                    shape_of(sizes_of(weight_scale)));
    STD_TORCH_CHECK(scale_of_input > 0, "scale: expected a positive number, got ", scale_of_input);
    STD_TORCH_CHECK(0 <= zero_point && zero_point <= 255, "zero_point: expected 0 to 255, got ", zero_point);
    const int64_t outputs = weight_scale.size(0);
    layer = {inputs, outputs, {float(scale_of_input), int32_t(zero_point)}, data<int8_t>(panels), data<float>(scale),
             nullptr};
    check_shape(("weight" + number).c_str(), weight, {(outputs + kLanes - 1) / kLanes, layer.quads() + 1, kBytes});
    if (weight_bias) {
      check_type("bias" + number, *weight_bias, ScalarType::Float, "float32");
      check_shape(("bias" + number).c_str(), *weight_bias, {outputs});
      bias = in_order(*weight_bias);
      layer.bias = data<float>(*bias);
    }
  }
};

int64_t channels_of(const Tensor& input) {
  STD_TORCH_CHECK(input.dim() > 0, "input: expected (..., inputs), got ()");
  return input.size(input.dim() - 1);
}

// Calls run(number of the input's type, output) where there are rows; returns the output.
template <typename F>
Tensor with_output(const Tensor& input, int64_t outputs, F run) {
  const ScalarType type = input.scalar_type();
  STD_TORCH_CHECK(input.is_cpu() && (type == ScalarType::Float || type == ScalarType::BFloat16),
                  "input: expected float32 or bfloat16 on a CPU");
  std::vector<int64_t> sizes = sizes_of(input);
  sizes.back() = outputs;
  Tensor output = torch::stable::new_empty(input, sizes);
  if (output.numel() == 0) return output;
  type == ScalarType::Float ? run(float(), output) : run(BFloat16(), output);
  return output;
}

template <typename F>
void in_tasks(int64_t rows, int64_t products_of_row, F run) {
  const int64_t tiles = (rows + kTile - 1) / kTile;
  const int64_t grain = std::max<int64_t>(1, kTask / (kTile * std::max<int64_t>(1, products_of_row)));
  torch::stable::parallel_for(0, tiles, grain, [&](int64_t begin, int64_t end) {
    run(begin * kTile, std::min(rows, end * kTile));
  });
}

CpuPath choose_path() {
  static const CpuPaths paths("INT8_LINEAR_CPU_PATH", {CpuPath::avx512_bf16, CpuPath::avx512_vnni, CpuPath::portable});
  return paths.choose();
}

}  // namespace
}  // namespace int8_linear

using namespace int8_linear;

Tensor pack(const Tensor& weight) {
  STD_TORCH_CHECK(weight.dim() == 2, "weight: expected (outputs, inputs), got ", shape_of(sizes_of(weight)));
  check_type("weight", weight, ScalarType::Char, "int8");
  const int64_t outputs = weight.size(0), inputs = weight.size(1), quads = (inputs + kQuad - 1) / kQuad;
  Tensor packed = torch::stable::new_empty(weight, {(outputs + kLanes - 1) / kLanes, quads + 1, kBytes});
  const Tensor rows = in_order(weight);
  int8_t* const panels = static_cast<int8_t*>(packed.mutable_data_ptr());
  std::memset(panels, 0, packed.numel());
  for (int64_t output = 0; output < outputs; ++output) {
    const int8_t* const row = data<int8_t>(rows) + output * inputs;
    int8_t* const panel = panels + output / kLanes * (quads + 1) * kBytes;
    const int64_t lane = output % kLanes;
    int32_t sum = 0;
    for (int64_t i = 0; i < inputs; ++i) {
      panel[(i / kQuad + 1) * kBytes + lane * kQuad + i % kQuad] = row[i];
      sum += row[i];
    }
    std::memcpy(panel + lane * sizeof(sum), &sum, sizeof(sum));
  }
  return packed;
}

Tensor linear(const Tensor& input, double scale, int64_t zero_point, const Tensor& weight, const Tensor& weight_scale,
              const std::optional<Tensor>& bias) {
  const Weights weights("", channels_of(input), scale, zero_point, weight, weight_scale, bias);
  const Layer& layer = weights.layer;
  const Tensor rows = in_order(input);
  const CpuPath path = choose_path();
  return with_output(input, layer.outputs, [&](auto number, Tensor& output) {
    using T = decltype(number);
    T* const out = static_cast<T*>(output.mutable_data_ptr());
    const auto run = ON_PATH(path, linear<T>);
    in_tasks(output.numel() / layer.outputs, layer.inputs * layer.outputs,
             [&](int64_t begin, int64_t end) { run(layer, data<T>(rows), out, begin, end); });
  });
}

Tensor feed_forward(const Tensor& input, double scale, int64_t zero_point, const Tensor& weight1,
                    const Tensor& weight_scale1, const std::optional<Tensor>& bias1, double hidden_scale,
                    int64_t hidden_zero_point, const Tensor& weight2, const Tensor& weight_scale2,
                    const std::optional<Tensor>& bias2) {
  const Weights first("1", channels_of(input), scale, zero_point, weight1, weight_scale1, bias1);
  const Layer& expansion = first.layer;
  const Weights second("2", expansion.outputs, hidden_scale, hidden_zero_point, weight2, weight_scale2, bias2);
  const Layer& projection = second.layer;
  const Tensor rows = in_order(input);
  const CpuPath path = choose_path();
  return with_output(input, projection.outputs, [&](auto number, Tensor& output) {
    using T = decltype(number);
    T* const out = static_cast<T*>(output.mutable_data_ptr());
    const auto run = ON_PATH(path, feed_forward<T>);
    in_tasks(output.numel() / projection.outputs, (expansion.inputs + projection.outputs) * projection.inputs,
             [&](int64_t begin, int64_t end) { run(expansion, projection, data<T>(rows), out, begin, end); });
  });
}

std::string cpu_path() { return name_of(choose_path()); }
