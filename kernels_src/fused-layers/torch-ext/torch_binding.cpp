#include "common/binding.h"
#include "fused_layers_operator/fused_layers.h"

DEFINE_OPERATORS(ops) {
  ops.def("layer_norm(Tensor input, Tensor weight, Tensor bias, float eps) -> Tensor");
  ops.def(
      "add_layer_norm(Tensor input, Tensor branch, Tensor? scale, Tensor weight, Tensor bias, float eps) "
      "-> (Tensor, Tensor)");
  ops.def("linear(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, Tensor? scale) -> Tensor");
  ops.def(
      "feed_forward(Tensor input, Tensor weight1, Tensor? bias1, Tensor weight2, Tensor? bias2, Tensor? residual, "
      "Tensor? scale) -> Tensor");
  ops.def("gelu(Tensor input) -> Tensor");
  ops.def("gelu_backward(Tensor gradient, Tensor input) -> Tensor");
  ops.def(
      "depthwise_norm_gelu(Tensor input, Tensor kernel, Tensor kernel_bias, Tensor weight, Tensor bias, float eps) "
      "-> Tensor");
  ops.def(
      "pointwise_conv(Tensor input, Tensor weight, Tensor? bias, Tensor? scale, Tensor? residual, Tensor? input_scale, "
      "Tensor? input_shift, bool input_relu, int activation) -> Tensor");
  ops.def(
      "batch_norm_factors(Tensor weight, Tensor bias, Tensor mean, Tensor variance, float eps) -> (Tensor, Tensor)");
  ops.def("merge_kernels(Tensor kernels, Tensor scale, Tensor? small, Tensor? small_scale) -> Tensor");
  ops.def("add_depthwise_gelu(Tensor input, Tensor kernel, Tensor kernel_bias) -> Tensor");
  ops.def("attend(Tensor query, Tensor key_value, int heads, Tensor kernel, Tensor kernel_bias) -> Tensor");
  ops.def(
      "mix_scales(Tensor input, Tensor[] kernels, Tensor[] kernel_biases, Tensor expand, Tensor expand_bias, "
      "Tensor mean, Tensor variance, Tensor weight, Tensor bias, float eps) -> Tensor");
}

IMPLEMENT_OPERATORS(ops) {
  ops.impl("layer_norm", TORCH_BOX(&layer_norm));
  ops.impl("add_layer_norm", TORCH_BOX(&add_layer_norm));
  ops.impl("linear", TORCH_BOX(&linear));
  ops.impl("feed_forward", TORCH_BOX(&feed_forward));
  ops.impl("gelu", TORCH_BOX(&gelu));
  ops.impl("gelu_backward", TORCH_BOX(&gelu_backward));
  ops.impl("depthwise_norm_gelu", TORCH_BOX(&depthwise_norm_gelu));
  ops.impl("pointwise_conv", TORCH_BOX(&pointwise_conv));
  ops.impl("batch_norm_factors", TORCH_BOX(&batch_norm_factors));
  ops.impl("merge_kernels", TORCH_BOX(&merge_kernels));
  ops.impl("add_depthwise_gelu", TORCH_BOX(&add_depthwise_gelu));
  ops.impl("attend", TORCH_BOX(&attend));
  ops.impl("mix_scales", TORCH_BOX(&mix_scales));
}
