// From the host to a CUDA kernel: stream, launch, error.
#pragma once

#include <string>

#include <torch/csrc/stable/accelerator.h>

#include "checks.h"
#include "device.cuh"

#ifndef USE_CUDA  // with it, LibTorch declares this
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
#endif

namespace common {

inline cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// `arguments` describes those of the operator `name`, for the message.
inline void check_launch(cudaError_t error, const char* name, const std::string& arguments) {
  STD_TORCH_CHECK(error == cudaSuccess, name, ": ", cudaGetErrorString(error), " (", arguments, ")");
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int shared_bytes, cudaStream_t stream,
                   Arguments... arguments) {
  constexpr int kWithoutAsking = 48 << 10;  // bytes of shared memory
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  if (shared_bytes > kWithoutAsking) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(blocks));
  config.blockDim = dim3(unsigned(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  return error == cudaSuccess ? error : cudaGetLastError();  // which forgets it: it is not another launch's
}

}  // namespace common
