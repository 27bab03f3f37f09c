"""ConvNeXt V2 with DCNv4 for depthwise convolutions (https://arxiv.org/abs/2401.06197, section 4.4).

Everything else is that of transformers' own model.
"""

from transformers.models.convnextv2.modeling_convnextv2 import (
    ConvNextV2Backbone,
    ConvNextV2ForImageClassification,
    ConvNextV2Model,
    ConvNextV2PreTrainedModel,
)

from .configuration_convnextv2_dcnv4 import ConvNextV2DCNv4Config
from .input_channels import fit_channels_of
from .modeling_adopted import WithDepthwiseDCNv4


class ConvNextV2DCNv4PreTrainedModel(WithDepthwiseDCNv4, ConvNextV2PreTrainedModel):
    config: ConvNextV2DCNv4Config
    config_class = ConvNextV2DCNv4Config


class ConvNextV2DCNv4Model(ConvNextV2DCNv4PreTrainedModel, ConvNextV2Model):
    """ConvNeXt V2 with DCNv4, without a head; see `ConvNextV2Model`."""


class ConvNextV2DCNv4ForImageClassification(ConvNextV2DCNv4PreTrainedModel, ConvNextV2ForImageClassification):
    """ConvNeXt V2 with DCNv4 and a classifier; see `ConvNextV2ForImageClassification`."""


class ConvNextV2DCNv4Backbone(ConvNextV2DCNv4PreTrainedModel, ConvNextV2Backbone):
    """ConvNeXt V2 with DCNv4 as a backbone; see `ConvNextV2Backbone`."""


fit_channels_of(ConvNextV2DCNv4Config.model_type, "embeddings.patch_embeddings.weight")

__all__ = [
    "ConvNextV2DCNv4Backbone",
    "ConvNextV2DCNv4ForImageClassification",
    "ConvNextV2DCNv4Model",
    "ConvNextV2DCNv4PreTrainedModel",
]
