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
  ops.def("depthwise_conv2d_forward(Tensor input, Tensor weight, Tensor? bias) -> Tensor");
  ops.def("depthwise_conv2d_backward_weight(Tensor grad_output, Tensor input, int[] kernel_size) -> Tensor");
  ops.def("depthwise_conv2d_backward_bias(Tensor grad_output) -> Tensor");
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
  ops.impl("depthwise_conv2d_forward", TORCH_BOX(&depthwise_conv2d_forward));
  ops.impl("depthwise_conv2d_backward_weight", TORCH_BOX(&depthwise_conv2d_backward_weight));
  ops.impl("depthwise_conv2d_backward_bias", TORCH_BOX(&depthwise_conv2d_backward_bias));
}

// Importing the module loads the library, which registers the operators.
PyMODINIT_FUNC CONCAT(PyInit_, TORCH_EXTENSION_NAME)(void) {
  static struct PyModuleDef module = {
      PyModuleDef_HEAD_INIT, STRING(TORCH_EXTENSION_NAME), nullptr, 0, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
