"""The deformable operator in PyTorch and its modules against outputs and gradients of the originals."""

import pytest
import torch

from hf_models.deformable_conv import DCNv3, DCNv4

from ..harness.deformable_aggregate_tester import (
    TOLERANCE,
    DeformableAggregateTester,
    assert_close,
    goldens,
)

DCNV4_MODULES = goldens("dcnv4_module")


class TestReference(DeformableAggregateTester):
    refused_derivatives = ("double_backward", "double_backward_trick")  # by PyTorch's `embedding_bag`

    @pytest.fixture
    def function(self):
        return self.reference


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", DCNV4_MODULES)
def test_dcnv4_module(case, dtype):
    parameters, tensors = DCNV4_MODULES[case]
    module = DCNv4(
        parameters["channels"],
        parameters["group"],
        dilation=parameters.get("dilation", 1),
        depthwise_kernel_size=parameters.get("dw_kernel_size"),
        offset_scale=parameters.get("offset_scale", 1.0),
        remove_center=parameters.get("remove_center", False),
        center_feature_scale=parameters.get("center_feature_scale", False),
        pointwise=not parameters.get("without_pointwise", False),
        output_bias=parameters.get("output_bias", True),
    )
    names = {"offset_mask_dw": "depthwise_conv", "center_feature_scale_proj_": "center_feature_scale."}
    state = {}
    for key, tensor in tensors.items():
        if key.startswith("state."):
            key = key.removeprefix("state.")
            for original, ours in names.items():
                key = key.replace(original, ours)
            state[key] = tensor
    module.to(dtype).load_state_dict(state)
    out = module(tensors["in"].to(dtype).unflatten(1, tuple(parameters["shape"])))
    assert_close(out, tensors["out"].unflatten(1, tuple(parameters["shape"])), TOLERANCE[dtype])


def test_initialisation_is_a_regular_grid():
    dcnv3, dcnv4 = DCNv3(16, 2, center_feature_scale=True), DCNv4(16, 2, center_feature_scale=True)
    for layer in (dcnv3.offset, dcnv3.mask, dcnv3.center_feature_scale, dcnv4.offset_mask, dcnv4.center_feature_scale):
        assert (layer.weight == 0).all()
        assert (layer.bias == 0).all()
    assert dcnv3.input_proj.weight.std() > 0
    # equal weights on the regular grid, half of it blended with the value itself: the mean of the 3x3 neighbourhood
    features = torch.randn(1, 6, 6, 16)
    value = dcnv3.input_proj(features)
    mean = torch.nn.functional.avg_pool2d(value.permute(0, 3, 1, 2), 3, stride=1, padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(dcnv3(features), dcnv3.output_proj((mean + value) / 2))
