#include "common/binding.h"
#include "detection_ops_operator/detection_ops.h"

DEFINE_OPERATORS(ops) {
  ops.def(
      "deformable_attention_forward(Tensor value, Tensor sampling_locations, Tensor attention_weights, "
      "int[] spatial_shapes) -> Tensor");
  ops.def(
      "deformable_attention_backward(Tensor grad_output, Tensor value, Tensor sampling_locations, "
      "Tensor attention_weights, int[] spatial_shapes) -> (Tensor, Tensor, Tensor)");
  ops.def("roi_align_forward(Tensor features, Tensor rois, int output_size, float spatial_scale) -> Tensor");
  ops.def("roi_align_backward(Tensor grad_output, Tensor rois, int[] size, float spatial_scale) -> Tensor");
  ops.def("suppress(Tensor boxes, Tensor groups, float iou_threshold) -> Tensor");
}

IMPLEMENT_OPERATORS(ops) {
  ops.impl("deformable_attention_forward", TORCH_BOX(&deformable_attention_forward));
  ops.impl("deformable_attention_backward", TORCH_BOX(&deformable_attention_backward));
  ops.impl("roi_align_forward", TORCH_BOX(&roi_align_forward));
  ops.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
  ops.impl("suppress", TORCH_BOX(&suppress));
}
