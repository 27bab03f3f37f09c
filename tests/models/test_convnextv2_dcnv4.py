from hf_models.configuration_convnextv2_dcnv4 import ConvNextV2DCNv4Config

from ..harness import adopted_tester


class TestConvNextV2DCNv4(adopted_tester.ConvNextTester):
    config_class = ConvNextV2DCNv4Config
    half_precision_error = 5e-2  # positions of samples that move in every layer
