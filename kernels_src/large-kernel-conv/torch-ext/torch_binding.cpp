#include "common/binding.h"
#include "large_kernel_conv_operator/depthwise_conv2d.h"

DEFINE_OPERATORS(ops) {
  ops.def("depthwise_conv2d_forward(Tensor input, Tensor weight, Tensor? bias) -> Tensor");
  ops.def("depthwise_conv2d_backward_weight(Tensor grad_output, Tensor input, int[] kernel_size) -> Tensor");
  ops.def("depthwise_conv2d_backward_bias(Tensor grad_output) -> Tensor");
}

IMPLEMENT_OPERATORS(ops) {
  ops.impl("depthwise_conv2d_forward", TORCH_BOX(&depthwise_conv2d_forward));
  ops.impl("depthwise_conv2d_backward_weight", TORCH_BOX(&depthwise_conv2d_backward_weight));
  ops.impl("depthwise_conv2d_backward_bias", TORCH_BOX(&depthwise_conv2d_backward_bias));
}
