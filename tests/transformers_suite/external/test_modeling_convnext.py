"""The yardstick: ConvNext of transformers itself. Tests that it skips are the only ones a family may skip."""

import unittest

from backbone_suite import BackboneSuite, ModelSuite
from transformers import ConvNextBackbone, ConvNextConfig, ConvNextForImageClassification, ConvNextModel


class ConvNextModelTest(ModelSuite, unittest.TestCase):
    config_class = ConvNextConfig
    all_model_classes = (ConvNextModel, ConvNextForImageClassification, ConvNextBackbone)


class ConvNextBackboneTest(BackboneSuite, unittest.TestCase):
    config_class = ConvNextConfig
    all_model_classes = (ConvNextBackbone,)
