import torch

from hf_models.configuration_smt import SMTConfig
from hf_models.modeling_smt import SMTAttention, SMTForImageClassification, SMTModulation

from ..harness.model_tester import ModelTester


class TestSMT(ModelTester):
    config_class = SMTConfig
    config_kwargs = {
        "hidden_sizes": (16, 24, 32, 48),
        "depths": (1, 2, 4, 1),
        "num_attention_heads": (1, 1, 4, 8),
        "layer_scale_init_value": 1e-4,
    }
    smallest_side = 3  # the second convolution of its stem takes 2 x 2 pixels of every second

    def test_third_stage_alternates_modulation_and_attention(self):
        stages = SMTForImageClassification(self.config()).smt.encoder.stages
        mixers = [[type(layer.mixer) for layer in stage.layers] for stage in stages]
        assert mixers == [
            [SMTModulation],
            [SMTModulation] * 2,
            [SMTModulation, SMTAttention] * 2,
            [SMTAttention],
        ]

    def test_norms_have_the_epsilons_of_the_original(self):
        model = SMTForImageClassification(self.config())
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.LayerNorm):
                expected = 1e-5 if "embeddings" in name or "downsample" in name else 1e-6
                assert module.eps == expected, name
        assert {m.eps for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-5}
