import torch

from hf_models.configuration_flash_internimage import FlashInternImageConfig
from hf_models.modeling_flash_internimage import FlashInternImageForImageClassification

from ..harness.model_tester import ModelTester


class TestFlashInternImage(ModelTester):
    config_class = FlashInternImageConfig
    config_kwargs = {"hidden_sizes": (16, 32, 64, 128), "depths": (1, 1, 2, 1), "groups": (2, 4, 8, 16)}
    amplifies_rounding = True

    def test_offsets_start_at_zero(self):
        for layer in FlashInternImageForImageClassification(self.config()).modules():
            if hasattr(layer, "dcn"):
                assert (layer.dcn.offset_mask.weight == 0).all()

    def test_norms_have_the_epsilons_of_the_original(self):
        model = FlashInternImageForImageClassification(self.config())
        assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}
        assert {m.eps for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-5}


class TestFlashInternImagePostNorm(TestFlashInternImage):
    """FlashInternImage-S to L: norms at the output of the branches, layer scale, a depthwise convolution."""

    config_kwargs = {
        **TestFlashInternImage.config_kwargs,
        "post_norm": True,
        "layer_scale_init_value": 1e-5,
        "depthwise_kernel_size": 3,
        "mlp_output_bias": True,
        "dcn_output_bias": True,
        "offset_scale": 2.0,
    }
    amplifies_rounding = False
