"""Registration of the families with the Auto classes of transformers."""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
)

from .configuration_aligned_upernet import AlignedUperNetConfig
from .configuration_flash_internimage import FlashInternImageConfig
from .configuration_internimage import InternImageConfig
from .configuration_replknet import RepLKNetConfig
from .configuration_segformer_head import SegformerHeadConfig
from .configuration_smt import SMTConfig
from .image_processing_imagenet import ImageNetImageProcessor
from .modeling_aligned_upernet import AlignedUperNetForSemanticSegmentation
from .modeling_flash_internimage import (
    FlashInternImageBackbone,
    FlashInternImageForImageClassification,
    FlashInternImageModel,
)
from .modeling_internimage import InternImageBackbone, InternImageForImageClassification, InternImageModel
from .modeling_replknet import RepLKNetBackbone, RepLKNetForImageClassification, RepLKNetModel
from .modeling_segformer_head import SegformerHeadForSemanticSegmentation
from .modeling_smt import SMTBackbone, SMTForImageClassification, SMTModel

# A new backbone is one line here.
FAMILIES = [
    (InternImageConfig, InternImageModel, InternImageForImageClassification, InternImageBackbone),
    (FlashInternImageConfig, FlashInternImageModel, FlashInternImageForImageClassification, FlashInternImageBackbone),
    (SMTConfig, SMTModel, SMTForImageClassification, SMTBackbone),
    (RepLKNetConfig, RepLKNetModel, RepLKNetForImageClassification, RepLKNetBackbone),
]
# Segmentation heads that transformers lacks; UperNet and Mask2Former are its own.
SEGMENTERS = [
    (SegformerHeadConfig, SegformerHeadForSemanticSegmentation),
    (AlignedUperNetConfig, AlignedUperNetForSemanticSegmentation),
]


def register_families() -> None:
    """Make the Auto classes know every family, its image processor, and every segmentation head."""
    for config, model, classifier, backbone in FAMILIES:
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
        AutoModelForImageClassification.register(config, classifier, exist_ok=True)
        AutoBackbone.register(config, backbone, exist_ok=True)
        # the one class stands for both backends, so that an installed torchvision changes nothing
        processors = {"pil": ImageNetImageProcessor, "torchvision": ImageNetImageProcessor}
        AutoImageProcessor.register(config, image_processor_classes=processors, exist_ok=True)
    for config, segmenter in SEGMENTERS:
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForSemanticSegmentation.register(config, segmenter, exist_ok=True)
