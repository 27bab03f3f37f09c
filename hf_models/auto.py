"""The families, and their registration with the Auto classes of transformers."""

from transformers import AutoConfig, AutoImageProcessor
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from .configuration_cb_internimage import CBInternImageConfig
from .configuration_flash_internimage import FlashInternImageConfig
from .configuration_internimage import InternImageConfig
from .configuration_replknet import RepLKNetConfig
from .configuration_smt import SMTConfig
from .image_processing_imagenet import ImageNetImageProcessor
from .modeling_cb_internimage import CBInternImageBackbone
from .modeling_flash_internimage import (
    FlashInternImageBackbone,
    FlashInternImageForImageClassification,
    FlashInternImageModel,
)
from .modeling_internimage import InternImageBackbone, InternImageForImageClassification, InternImageModel
from .modeling_replknet import RepLKNetBackbone, RepLKNetForImageClassification, RepLKNetModel
from .modeling_smt import SMTBackbone, SMTForImageClassification, SMTModel
from .remote_code import save_code_with_stock_models

# A new backbone is one line here. No other file lists the families.
FAMILIES = [
    (InternImageConfig, InternImageModel, InternImageForImageClassification, InternImageBackbone),
    (FlashInternImageConfig, FlashInternImageModel, FlashInternImageForImageClassification, FlashInternImageBackbone),
    (SMTConfig, SMTModel, SMTForImageClassification, SMTBackbone),
    (RepLKNetConfig, RepLKNetModel, RepLKNetForImageClassification, RepLKNetBackbone),
]
# Backbones of detectors, which nobody trained to classify.
BACKBONES = [(CBInternImageConfig, CBInternImageBackbone)]


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
