"""ConvNeXt with depthwise kernels up to 31x31 (RepLKNet, https://arxiv.org/abs/2203.06717, section 5.3).

Everything else, and the names of all weights, is that of transformers' own model.
"""

from transformers.models.convnext.modeling_convnext import (
    ConvNextBackbone,
    ConvNextForImageClassification,
    ConvNextModel,
    ConvNextPreTrainedModel,
)

from .configuration_convnext_large_kernel import ConvNextLargeKernelConfig
from .input_channels import fit_channels_of
from .modeling_adopted import WithLargeKernels


class ConvNextLargeKernelPreTrainedModel(WithLargeKernels, ConvNextPreTrainedModel):
    config: ConvNextLargeKernelConfig
    config_class = ConvNextLargeKernelConfig


class ConvNextLargeKernelModel(ConvNextLargeKernelPreTrainedModel, ConvNextModel):
    """ConvNeXt with large kernels, without a head; see `ConvNextModel`."""


class ConvNextLargeKernelForImageClassification(ConvNextLargeKernelPreTrainedModel, ConvNextForImageClassification):
    """ConvNeXt with large kernels and a classifier; see `ConvNextForImageClassification`."""


class ConvNextLargeKernelBackbone(ConvNextLargeKernelPreTrainedModel, ConvNextBackbone):
    """ConvNeXt with large kernels as a backbone; see `ConvNextBackbone`."""


fit_channels_of(ConvNextLargeKernelConfig.model_type, "embeddings.patch_embeddings.weight")

__all__ = [
    "ConvNextLargeKernelBackbone",
    "ConvNextLargeKernelForImageClassification",
    "ConvNextLargeKernelModel",
    "ConvNextLargeKernelPreTrainedModel",
]
