// The Python module of a kernel and the registration of its operators, which torch-ext/torch_binding.cpp writes as
//
//   DEFINE_OPERATORS(ops) { ops.def("name(Tensor input) -> Tensor"); }
//   IMPLEMENT_OPERATORS(ops) { ops.impl("name", TORCH_BOX(&name)); }
//
// The builder says which device it builds for (CPU_KERNEL or CUDA_KERNEL), and the name of module and operator
// namespace (TORCH_EXTENSION_NAME). To be included by that one file.
#pragma once

#include <Python.h>

#include <torch/csrc/stable/library.h>

// The name is a macro itself: these expand it before the macros that paste it.
#define CONCAT_EXPANDED(A, B) A##B
#define CONCAT(A, B) CONCAT_EXPANDED(A, B)
#define STRING_EXPANDED(A) #A
#define STRING(A) STRING_EXPANDED(A)
#define LIBRARY(NAME, OPS) STABLE_TORCH_LIBRARY(NAME, OPS)
#define LIBRARY_FRAGMENT(NAME, OPS) STABLE_TORCH_LIBRARY_FRAGMENT(NAME, OPS)
#define LIBRARY_IMPL(NAME, KEY, OPS) STABLE_TORCH_LIBRARY_IMPL(NAME, KEY, OPS)

#define DEFINE_OPERATORS(OPS) LIBRARY(TORCH_EXTENSION_NAME, OPS)

#ifdef CPU_KERNEL
#include "cpu_path.h"

#define IMPLEMENT_OPERATORS(OPS) LIBRARY_IMPL(TORCH_EXTENSION_NAME, CPU, OPS)

LIBRARY_FRAGMENT(TORCH_EXTENSION_NAME, ops) { ops.def("cpu_path() -> str"); }
LIBRARY_IMPL(TORCH_EXTENSION_NAME, CompositeImplicitAutograd, ops) { ops.impl("cpu_path", TORCH_BOX(&cpu_path)); }
#else
#define IMPLEMENT_OPERATORS(OPS) LIBRARY_IMPL(TORCH_EXTENSION_NAME, CUDA, OPS)
#endif

// Importing the module loads the library, which registers the operators.
PyMODINIT_FUNC CONCAT(PyInit_, TORCH_EXTENSION_NAME)(void) {
  static struct PyModuleDef module = {
      PyModuleDef_HEAD_INIT, STRING(TORCH_EXTENSION_NAME), nullptr, 0, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
