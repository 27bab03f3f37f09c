#include <Python.h>

#include <torch/csrc/stable/library.h>

#include "torch_binding.h"

// The library's name is a macro: expand it before the macros that paste it.
#define CONCAT_EXPANDED(A, B) A##B
#define CONCAT(A, B) CONCAT_EXPANDED(A, B)
#define STRING_EXPANDED(A) #A
#define STRING(A) STRING_EXPANDED(A)
#define LIBRARY(NAME, MODULE) STABLE_TORCH_LIBRARY(NAME, MODULE)
#define LIBRARY_IMPL(NAME, KEY, MODULE) STABLE_TORCH_LIBRARY_IMPL(NAME, KEY, MODULE)

LIBRARY(TORCH_EXTENSION_NAME, ops) {
  ops.def(
      "deformable_aggregate_forward(Tensor value, Tensor offset, Tensor weight, int[] kernel_size, int[] stride, "
      "int[] padding, int[] dilation, float offset_scale, bool remove_center, bool softmax) -> Tensor");
  ops.def(
      "deformable_aggregate_backward(Tensor grad_output, Tensor value, Tensor offset, Tensor weight, "
      "int[] kernel_size, int[] stride, int[] padding, int[] dilation, float offset_scale, bool remove_center, "
      "bool softmax, bool deterministic=False) -> (Tensor, Tensor, Tensor)");
#ifdef CPU_KERNEL
  ops.def("cpu_path() -> str");
#endif
}

#ifdef CPU_KERNEL
LIBRARY_IMPL(TORCH_EXTENSION_NAME, CompositeImplicitAutograd, ops) { ops.impl("cpu_path", TORCH_BOX(&cpu_path)); }
LIBRARY_IMPL(TORCH_EXTENSION_NAME, CPU, ops) {
#else
LIBRARY_IMPL(TORCH_EXTENSION_NAME, CUDA, ops) {
#endif
  ops.impl("deformable_aggregate_forward", TORCH_BOX(&deformable_aggregate_forward));
  ops.impl("deformable_aggregate_backward", TORCH_BOX(&deformable_aggregate_backward));
}

// Importing the module loads the library, which registers the operators.
PyMODINIT_FUNC CONCAT(PyInit_, TORCH_EXTENSION_NAME)(void) {
  static struct PyModuleDef module = {
      PyModuleDef_HEAD_INIT, STRING(TORCH_EXTENSION_NAME), nullptr, 0, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
