"""ConvNeXt with DCNv4 for depthwise convolutions (https://arxiv.org/abs/2401.06197, section 4.4).

Everything else is that of transformers' own model.
"""

from transformers.models.convnext.modeling_convnext import (
    ConvNextBackbone,
    ConvNextForImageClassification,
    ConvNextModel,
    ConvNextPreTrainedModel,
)

from .configuration_convnext_dcnv4 import ConvNextDCNv4Config
from .input_channels import fit_channels_of
from .modeling_adopted import WithDepthwiseDCNv4


class ConvNextDCNv4PreTrainedModel(WithDepthwiseDCNv4, ConvNextPreTrainedModel):
    config: ConvNextDCNv4Config
    config_class = ConvNextDCNv4Config


class ConvNextDCNv4Model(ConvNextDCNv4PreTrainedModel, ConvNextModel):
    """ConvNeXt with DCNv4, without a head; see `ConvNextModel`."""


class ConvNextDCNv4ForImageClassification(ConvNextDCNv4PreTrainedModel, ConvNextForImageClassification):
    """ConvNeXt with DCNv4 and a classifier; see `ConvNextForImageClassification`."""


class ConvNextDCNv4Backbone(ConvNextDCNv4PreTrainedModel, ConvNextBackbone):
    """ConvNeXt with DCNv4 as a backbone; see `ConvNextBackbone`."""


fit_channels_of(ConvNextDCNv4Config.model_type, "embeddings.patch_embeddings.weight")

__all__ = [
    "ConvNextDCNv4Backbone",
    "ConvNextDCNv4ForImageClassification",
    "ConvNextDCNv4Model",
    "ConvNextDCNv4PreTrainedModel",
]
