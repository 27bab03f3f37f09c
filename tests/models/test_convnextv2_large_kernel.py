from hf_models.configuration_convnextv2_large_kernel import ConvNextV2LargeKernelConfig

from ..harness import adopted_tester


class TestConvNextV2LargeKernel(adopted_tester.ConvNextTester):
    config_class = ConvNextV2LargeKernelConfig
