import unittest

from backbone_suite import BackboneSuite, ModelSuite

from hf_models.configuration_replknet import RepLKNetConfig
from hf_models.modeling_replknet import RepLKNetBackbone, RepLKNetForImageClassification, RepLKNetModel

TINY = {"kernel_sizes": [7, 5, 5, 3], "small_kernel_size": 3, "mlp_ratio": 2.0}


class RepLKNetModelTest(ModelSuite, unittest.TestCase):
    config_class = RepLKNetConfig
    all_model_classes = (RepLKNetModel, RepLKNetForImageClassification, RepLKNetBackbone)
    tiny = TINY


class RepLKNetMergedModelTest(RepLKNetModelTest):
    """The deployable form: one kernel a layer, BatchNorm folded."""

    tiny = {**TINY, "reparameterized": True, "batch_norm_folded": True}


class RepLKNetBackboneTest(BackboneSuite, unittest.TestCase):
    config_class = RepLKNetConfig
    all_model_classes = (RepLKNetBackbone,)
    tiny = TINY
