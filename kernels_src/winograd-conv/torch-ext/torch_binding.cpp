#include "common/binding.h"
#include "winograd_conv_operator/conv3x3.h"

DEFINE_OPERATORS(ops) { ops.def("conv3x3(Tensor input, Tensor weight, Tensor? bias, bool relu) -> Tensor"); }

IMPLEMENT_OPERATORS(ops) { ops.impl("conv3x3", TORCH_BOX(&conv3x3)); }
