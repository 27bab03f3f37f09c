#include "common/binding.h"
#include "deformable_conv_operator/deformable_aggregate.h"

DEFINE_OPERATORS(ops) {
  ops.def(
      "deformable_aggregate_forward(Tensor value, Tensor offset, Tensor weight, int[] kernel_size, int[] stride, "
      "int[] padding, int[] dilation, float offset_scale, bool remove_center, bool softmax) -> Tensor");
  ops.def(
      "deformable_aggregate_backward(Tensor grad_output, Tensor value, Tensor offset, Tensor weight, "
      "int[] kernel_size, int[] stride, int[] padding, int[] dilation, float offset_scale, bool remove_center, "
      "bool softmax, bool deterministic=False) -> (Tensor, Tensor, Tensor)");
}

IMPLEMENT_OPERATORS(ops) {
  ops.impl("deformable_aggregate_forward", TORCH_BOX(&deformable_aggregate_forward));
  ops.impl("deformable_aggregate_backward", TORCH_BOX(&deformable_aggregate_backward));
}
