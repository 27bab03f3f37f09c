"""The families, and their registration with the Auto classes of transformers."""

from transformers import AutoConfig, AutoImageProcessor
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from .configuration_cb_internimage import CBInternImageConfig
from .configuration_convnext_dcnv4 import ConvNextDCNv4Config
from .configuration_convnext_large_kernel import ConvNextLargeKernelConfig
from .configuration_convnextv2_dcnv4 import ConvNextV2DCNv4Config
from .configuration_convnextv2_large_kernel import ConvNextV2LargeKernelConfig
from .configuration_dinov3_convnext_dcnv4 import DINOv3ConvNextDCNv4Config
from .configuration_dinov3_convnext_large_kernel import DINOv3ConvNextLargeKernelConfig
from .configuration_flash_internimage import FlashInternImageConfig
from .configuration_internimage import InternImageConfig
from .configuration_replknet import RepLKNetConfig
from .configuration_smt import SMTConfig
from .configuration_vit_dcnv4 import ViTDCNv4Config
from .image_processing_imagenet import ImageNetImageProcessor
from .modeling_cb_internimage import CBInternImageBackbone
from .modeling_convnext_dcnv4 import ConvNextDCNv4Backbone, ConvNextDCNv4ForImageClassification, ConvNextDCNv4Model
from .modeling_convnext_large_kernel import (
    ConvNextLargeKernelBackbone,
    ConvNextLargeKernelForImageClassification,
    ConvNextLargeKernelModel,
)
from .modeling_convnextv2_dcnv4 import (
    ConvNextV2DCNv4Backbone,
    ConvNextV2DCNv4ForImageClassification,
    ConvNextV2DCNv4Model,
)
from .modeling_convnextv2_large_kernel import (
    ConvNextV2LargeKernelBackbone,
    ConvNextV2LargeKernelForImageClassification,
    ConvNextV2LargeKernelModel,
)
from .modeling_dinov3_convnext_dcnv4 import DINOv3ConvNextDCNv4Backbone, DINOv3ConvNextDCNv4Model
from .modeling_dinov3_convnext_large_kernel import DINOv3ConvNextLargeKernelBackbone, DINOv3ConvNextLargeKernelModel
from .modeling_flash_internimage import (
    FlashInternImageBackbone,
    FlashInternImageForImageClassification,
    FlashInternImageModel,
)
from .modeling_internimage import InternImageBackbone, InternImageForImageClassification, InternImageModel
from .modeling_replknet import RepLKNetBackbone, RepLKNetForImageClassification, RepLKNetModel
from .modeling_smt import SMTBackbone, SMTForImageClassification, SMTModel
from .modeling_vit_dcnv4 import ViTDCNv4Backbone, ViTDCNv4ForImageClassification, ViTDCNv4Model
from .remote_code import save_code_with_stock_models

# A new backbone is one line here. No other file lists the families.
FAMILIES = [
    (InternImageConfig, InternImageModel, InternImageForImageClassification, InternImageBackbone),
    (FlashInternImageConfig, FlashInternImageModel, FlashInternImageForImageClassification, FlashInternImageBackbone),
    (SMTConfig, SMTModel, SMTForImageClassification, SMTBackbone),
    (RepLKNetConfig, RepLKNetModel, RepLKNetForImageClassification, RepLKNetBackbone),
    (
        *(ConvNextLargeKernelConfig, ConvNextLargeKernelModel, ConvNextLargeKernelForImageClassification),
        ConvNextLargeKernelBackbone,
    ),
    (
        *(ConvNextV2LargeKernelConfig, ConvNextV2LargeKernelModel, ConvNextV2LargeKernelForImageClassification),
        ConvNextV2LargeKernelBackbone,
    ),
    (ConvNextDCNv4Config, ConvNextDCNv4Model, ConvNextDCNv4ForImageClassification, ConvNextDCNv4Backbone),
    (ConvNextV2DCNv4Config, ConvNextV2DCNv4Model, ConvNextV2DCNv4ForImageClassification, ConvNextV2DCNv4Backbone),
    (ViTDCNv4Config, ViTDCNv4Model, ViTDCNv4ForImageClassification, ViTDCNv4Backbone),
]
# Those without a classifier.
BACKBONES = [
    (CBInternImageConfig, CBInternImageBackbone),
    (DINOv3ConvNextLargeKernelConfig, DINOv3ConvNextLargeKernelModel, DINOv3ConvNextLargeKernelBackbone),
    (DINOv3ConvNextDCNv4Config, DINOv3ConvNextDCNv4Model, DINOv3ConvNextDCNv4Backbone),
]


def register_families(replace: bool = True) -> None:
    """Make the Auto classes know every family and its image processor.

    Args:
        replace: Whether a family that they know already is registered anew; where this file comes from a repository it
            is not, and transformers stays as it is.
    """
    for config, *models in [*FAMILIES, *BACKBONES]:
        if not replace and config.model_type in CONFIG_MAPPING:
            continue
        AutoConfig.register(config.model_type, config, exist_ok=True)
        for auto_class, model in zip(config.auto_classes, models, strict=True):
            getattr(modeling_auto, auto_class).register(config, model, exist_ok=True)
        # the one class stands for both backends, so that an installed torchvision changes nothing
        processors = {"pil": ImageNetImageProcessor, "torchvision": ImageNetImageProcessor}
        AutoImageProcessor.register(config, image_processor_classes=processors, exist_ok=True)
        # Pipelines look for a video processor too, and take the name of our image processor for remote code that they
        # ask the user about. They do not where a family is known to have none.
        VIDEO_PROCESSOR_MAPPING.register(config, {}, exist_ok=True)
    if replace:
        save_code_with_stock_models()
