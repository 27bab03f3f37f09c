"""ConvNeXt V2 with depthwise kernels up to 31x31 (RepLKNet, https://arxiv.org/abs/2203.06717, section 5.3).

Everything else, and the names of all weights, is that of transformers' own model.
"""

from transformers.models.convnextv2.modeling_convnextv2 import (
    ConvNextV2Backbone,
    ConvNextV2ForImageClassification,
    ConvNextV2Model,
    ConvNextV2PreTrainedModel,
)

from .configuration_convnextv2_large_kernel import ConvNextV2LargeKernelConfig
from .input_channels import fit_channels_of
from .modeling_adopted import WithLargeKernels


class ConvNextV2LargeKernelPreTrainedModel(WithLargeKernels, ConvNextV2PreTrainedModel):
    config: ConvNextV2LargeKernelConfig
    config_class = ConvNextV2LargeKernelConfig


class ConvNextV2LargeKernelModel(ConvNextV2LargeKernelPreTrainedModel, ConvNextV2Model):
    """ConvNeXt V2 with large kernels, without a head; see `ConvNextV2Model`."""


class ConvNextV2LargeKernelForImageClassification(
    ConvNextV2LargeKernelPreTrainedModel, ConvNextV2ForImageClassification
):
    """ConvNeXt V2 with large kernels and a classifier; see `ConvNextV2ForImageClassification`."""


class ConvNextV2LargeKernelBackbone(ConvNextV2LargeKernelPreTrainedModel, ConvNextV2Backbone):
    """ConvNeXt V2 with large kernels as a backbone; see `ConvNextV2Backbone`."""


fit_channels_of(ConvNextV2LargeKernelConfig.model_type, "embeddings.patch_embeddings.weight")

__all__ = [
    "ConvNextV2LargeKernelBackbone",
    "ConvNextV2LargeKernelForImageClassification",
    "ConvNextV2LargeKernelModel",
    "ConvNextV2LargeKernelPreTrainedModel",
]
