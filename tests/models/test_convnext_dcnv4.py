from hf_models.configuration_convnext_dcnv4 import ConvNextDCNv4Config

from ..harness import adopted_tester


class TestConvNextDCNv4(adopted_tester.ConvNextTester):
    config_class = ConvNextDCNv4Config
