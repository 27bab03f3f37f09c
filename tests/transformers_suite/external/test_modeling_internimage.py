import unittest

from backbone_suite import BackboneSuite, ModelSuite

from hf_models.configuration_internimage import InternImageConfig
from hf_models.modeling_internimage import InternImageBackbone, InternImageForImageClassification, InternImageModel

TINY = {"groups": [1, 2, 3, 4], "mlp_ratio": 2.0, "layer_scale_init_value": 1e-4}
TINY_HUGE = {
    "groups": [1, 2, 3, 4],
    "mlp_ratio": 2.0,
    "depthwise_kernel_size": 5,
    "res_post_norm": True,
    "center_feature_scale": True,
    "intermediate_norm_layers": [0, 1],
    "pooler_type": "attention",
    "pooler_hidden_size": 16,
    "pooler_num_heads": 2,
    "pooler_output_size": 24,
}


class InternImageModelTest(ModelSuite, unittest.TestCase):
    config_class = InternImageConfig
    all_model_classes = (InternImageModel, InternImageForImageClassification, InternImageBackbone)
    tiny = TINY


class InternImageHugeModelTest(InternImageModelTest):
    """Everything that only the H and G variants have."""

    tiny = TINY_HUGE


class InternImageBackboneTest(BackboneSuite, unittest.TestCase):
    config_class = InternImageConfig
    all_model_classes = (InternImageBackbone,)
    tiny = TINY
