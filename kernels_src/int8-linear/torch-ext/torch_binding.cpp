#include "common/binding.h"
#include "int8_linear_operator/int8_linear.h"

DEFINE_OPERATORS(ops) {
  ops.def("pack(Tensor weight) -> Tensor");
  ops.def(
      "linear(Tensor input, float scale, int zero_point, Tensor weight, Tensor weight_scale, Tensor? bias) -> Tensor");
  ops.def(
      "feed_forward(Tensor input, float scale, int zero_point, Tensor weight1, Tensor weight_scale1, Tensor? bias1, "
      "float hidden_scale, int hidden_zero_point, Tensor weight2, Tensor weight_scale2, Tensor? bias2) -> Tensor");
}

IMPLEMENT_OPERATORS(ops) {
  ops.impl("pack", TORCH_BOX(&pack));
  ops.impl("linear", TORCH_BOX(&linear));
  ops.impl("feed_forward", TORCH_BOX(&feed_forward));
}
