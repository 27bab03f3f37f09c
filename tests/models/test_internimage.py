import pytest
import torch

from hf_models.configuration_internimage import InternImageConfig
from hf_models.modeling_internimage import InternImageForImageClassification

from ..harness.model_tester import ModelTester


class TestInternImage(ModelTester):
    config_class = InternImageConfig
    config_kwargs = {"hidden_sizes": (16, 32, 64, 128), "depths": (1, 1, 2, 1), "groups": (2, 4, 8, 16)}

    def test_offsets_start_at_zero(self):
        for layer in InternImageForImageClassification(self.config()).modules():
            if hasattr(layer, "dcn"):
                assert (layer.dcn.offset.weight == 0).all()
                assert (layer.dcn.mask.bias == 0).all()

    def test_norms_have_the_epsilons_of_the_original(self):
        model = InternImageForImageClassification(self.config())
        assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}
        assert {m.eps for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-5}

    def test_groups_must_divide_channels(self):
        with pytest.raises(ValueError, match=r"hidden_sizes must be a positive multiple of groups \(3\), got 16"):
            self.config(groups=(3, 4, 8, 16))


class TestInternImageAttentionPooler(TestInternImage):
    """InternImage-H and G: attention pooling, norms inside the third stage, a gate on the centre."""

    smallest_side = 32
    config_kwargs = {
        **TestInternImage.config_kwargs,
        "res_post_norm": True,
        "depthwise_kernel_size": 5,
        "center_feature_scale": True,
        "intermediate_norm_layers": (1,),
        "pooler_type": "attention",
        "pooler_hidden_size": 64,
        "pooler_num_heads": 4,
        "pooler_output_size": 48,
    }

    def test_norms_have_the_epsilons_of_the_original(self):
        model = InternImageForImageClassification(self.config())
        assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}

    def test_sides_that_the_pooler_cannot_take_are_named(self):
        with pytest.raises(ValueError, match="multiples of 32"):
            self.classifier()(self.images(height=48, width=64))


class TestInternImagePostNorm(TestInternImage):
    """InternImage-S to XL: norms at the output of the branches, layer scale."""

    config_kwargs = {**TestInternImage.config_kwargs, "post_norm": True, "layer_scale_init_value": 1e-5}
