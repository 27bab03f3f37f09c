"""DINOv3's ConvNeXt with depthwise kernels up to 31x31 (RepLKNet, https://arxiv.org/abs/2203.06717, section 5.3).

Everything else, and the names of all weights, is that of transformers' own model.
"""

from transformers.models.dinov3_convnext.modeling_dinov3_convnext import (
    DINOv3ConvNextBackbone,
    DINOv3ConvNextModel,
    DINOv3ConvNextPreTrainedModel,
)

from .configuration_dinov3_convnext_large_kernel import DINOv3ConvNextLargeKernelConfig
from .input_channels import fit_channels_of
from .modeling_adopted import WithLargeKernels


class DINOv3ConvNextLargeKernelPreTrainedModel(WithLargeKernels, DINOv3ConvNextPreTrainedModel):
    config: DINOv3ConvNextLargeKernelConfig
    config_class = DINOv3ConvNextLargeKernelConfig


class DINOv3ConvNextLargeKernelModel(DINOv3ConvNextLargeKernelPreTrainedModel, DINOv3ConvNextModel):
    """DINOv3's ConvNeXt with large kernels, without a head; see `DINOv3ConvNextModel`."""


class DINOv3ConvNextLargeKernelBackbone(DINOv3ConvNextLargeKernelPreTrainedModel, DINOv3ConvNextBackbone):
    """DINOv3's ConvNeXt with large kernels as a backbone; see `DINOv3ConvNextBackbone`."""


fit_channels_of(DINOv3ConvNextLargeKernelConfig.model_type, "model.stages.0.downsample_layers.0.weight")

__all__ = [
    "DINOv3ConvNextLargeKernelBackbone",
    "DINOv3ConvNextLargeKernelModel",
    "DINOv3ConvNextLargeKernelPreTrainedModel",
]
