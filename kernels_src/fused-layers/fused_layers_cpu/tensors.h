// What the tensor-facing code of every operator needs: the path, the memory of tensors, the split into tasks.
#pragma once

#include <algorithm>

#include "common/cpu_path.h"
#include "fused_layers_operator/checks.h"
#include "problem.h"

#if defined(__x86_64__)
#define ON_PATH(PATH, ...) \
  ((PATH) == CpuPath::avx512_bf16 ? &avx512_bf16::__VA_ARGS__ : ON_CPU_PATH(PATH, __VA_ARGS__))
#else
#define ON_PATH(PATH, ...) ON_CPU_PATH(PATH, __VA_ARGS__)
#endif

namespace fused_layers {

constexpr int64_t kTask = 1 << 14;  // numbers; they take some 10 microseconds, about what it costs to wake a thread

// The tensor itself where its numbers lie in order: asking PyTorch for a copy costs time even where it makes none.
inline Tensor in_order(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
T* data(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

inline CpuPath choose_path() {
  static const CpuPaths paths("FUSED_LAYERS_CPU_PATH",
                              {CpuPath::avx512_bf16, CpuPath::avx512, CpuPath::avx2, CpuPath::portable});
  return paths.choose();
}

inline int64_t grain(int64_t numbers_of_row) { return std::max<int64_t>(1, kTask / numbers_of_row); }

}  // namespace fused_layers
