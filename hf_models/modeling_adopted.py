"""What models of transformers with other layers share: mixins that come before a class of transformers."""

import torch

from .adopted_layers import resized, use_depthwise_dcnv4, use_large_kernels
from .large_kernel_conv import ReparameterizableLargeKernelConv
from .layers import initialize_linear
from .saved_weights import OneSetOfWeights
from .sharding import Shardable


class OtherLayers(Shardable, OneSetOfWeights):
    """Mixin of the mixins, each of which has a method `change_layers`.

    The layers are changed once the network is built and before its weights start. Models inside of it stay those of
    transformers, with the config of the whole.
    """

    def post_init(self) -> None:
        """What transformers calls last when it builds a model."""
        self.change_layers()
        super().post_init()

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """As transformers, and then the layers that start in a way of their own: see `layers.starting_with`."""
        super().initialize_weights()
        for module in self.modules():
            if hasattr(module, "initialize_weight"):
                initialize_linear(module, module.initialize_weight)


class WithLargeKernels(OtherLayers):
    """A ConvNeXt with large kernels; its config has the mixin `LargeKernels`."""

    def change_layers(self) -> None:
        """Give the depthwise convolutions their sizes."""
        use_large_kernels(self, self.config.size_of_each_kernel(), self.config.small_kernel_size)

    @torch.no_grad()
    def merge_reparameterization(self) -> "WithLargeKernels":
        """Turn a model that was trained with small kernels beside the large ones, in place, into one without.

        It computes the same in evaluation, faster, and can be saved and loaded like any model.

        Returns:
            The model itself.
        """
        for name, module in list(self.named_modules()):
            if isinstance(module, ReparameterizableLargeKernelConv):
                module.merge()
                self.set_submodule(name, resized(module.merged, module.merged.kernel_size[0]).train(module.training))
        self.config.small_kernel_size = None
        return self


class WithDepthwiseDCNv4(OtherLayers):
    """A ConvNeXt with DCNv4; its config has the mixin `GroupsOfWidth`."""

    def change_layers(self) -> None:
        """Put DCNv4 in the place of the depthwise convolutions."""
        use_depthwise_dcnv4(self, self.config.group_width)
