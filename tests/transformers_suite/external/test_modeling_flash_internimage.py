import unittest

from backbone_suite import BackboneSuite, ModelSuite

from hf_models.configuration_flash_internimage import FlashInternImageConfig
from hf_models.modeling_flash_internimage import (
    FlashInternImageBackbone,
    FlashInternImageForImageClassification,
    FlashInternImageModel,
)

TINY = {"groups": [1, 2, 3, 4], "mlp_ratio": 2.0, "layer_scale_init_value": 1e-4}


class FlashInternImageModelTest(ModelSuite, unittest.TestCase):
    config_class = FlashInternImageConfig
    all_model_classes = (FlashInternImageModel, FlashInternImageForImageClassification, FlashInternImageBackbone)
    tiny = TINY


class FlashInternImageBackboneTest(BackboneSuite, unittest.TestCase):
    config_class = FlashInternImageConfig
    all_model_classes = (FlashInternImageBackbone,)
    tiny = TINY
