// What LibTorch has of CUDA, for tensors on the CPU.
#include <string>

#include <torch/csrc/stable/c/shim.h>

extern "C" {
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
AOTITorchError aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = nullptr;
  return 0;
}
AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) { return 0; }
}

// The name of this "processor", which the binding of the CPU's build asks for.
std::string cpu_path() { return "emulated"; }
