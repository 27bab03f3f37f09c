"""DINOv3's ConvNeXt with DCNv4 for depthwise convolutions (https://arxiv.org/abs/2401.06197, section 4.4).

Everything else is that of transformers' own model.
"""

from transformers.models.dinov3_convnext.modeling_dinov3_convnext import (
    DINOv3ConvNextBackbone,
    DINOv3ConvNextModel,
    DINOv3ConvNextPreTrainedModel,
)

from .configuration_dinov3_convnext_dcnv4 import DINOv3ConvNextDCNv4Config
from .input_channels import fit_channels_of
from .modeling_adopted import WithDepthwiseDCNv4


class DINOv3ConvNextDCNv4PreTrainedModel(WithDepthwiseDCNv4, DINOv3ConvNextPreTrainedModel):
    config: DINOv3ConvNextDCNv4Config
    config_class = DINOv3ConvNextDCNv4Config


class DINOv3ConvNextDCNv4Model(DINOv3ConvNextDCNv4PreTrainedModel, DINOv3ConvNextModel):
    """DINOv3's ConvNeXt with DCNv4, without a head; see `DINOv3ConvNextModel`."""


class DINOv3ConvNextDCNv4Backbone(DINOv3ConvNextDCNv4PreTrainedModel, DINOv3ConvNextBackbone):
    """DINOv3's ConvNeXt with DCNv4 as a backbone; see `DINOv3ConvNextBackbone`."""


fit_channels_of(DINOv3ConvNextDCNv4Config.model_type, "model.stages.0.downsample_layers.0.weight")

__all__ = [
    "DINOv3ConvNextDCNv4Backbone",
    "DINOv3ConvNextDCNv4Model",
    "DINOv3ConvNextDCNv4PreTrainedModel",
]
