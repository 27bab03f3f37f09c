import unittest

from backbone_suite import BackboneSuite, ModelSuite

from hf_models.configuration_smt import SMTConfig
from hf_models.modeling_smt import SMTBackbone, SMTForImageClassification, SMTModel

TINY = {"num_attention_heads": [1, 1, 3, 4], "mlp_ratios": [2, 2, 2, 2], "layer_scale_init_value": 1e-4}


class SMTModelTest(ModelSuite, unittest.TestCase):
    config_class = SMTConfig
    all_model_classes = (SMTModel, SMTForImageClassification, SMTBackbone)
    tiny = TINY


class SMTBackboneTest(BackboneSuite, unittest.TestCase):
    config_class = SMTConfig
    all_model_classes = (SMTBackbone,)
    tiny = TINY
