"""Registration of the segmentation heads that transformers lacks, and of our image processor for its Mask2Former."""

from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation, Mask2FormerConfig
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from ..configuration_aligned_upernet import AlignedUperNetConfig
from ..configuration_segformer_head import SegformerHeadConfig
from ..image_processing_mask2former import SemanticMask2FormerImageProcessor
from ..modeling_aligned_upernet import AlignedUperNetForSemanticSegmentation
from ..modeling_segformer_head import SegformerHeadForSemanticSegmentation
from ..stock_models import HubMask2FormerConfig

SEGMENTERS = [
    (SegformerHeadConfig, SegformerHeadForSemanticSegmentation),
    (AlignedUperNetConfig, AlignedUperNetForSemanticSegmentation),
]


def register_segmenters() -> None:
    """Make the Auto classes know every segmentation head."""
    for config, segmenter in SEGMENTERS:
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForSemanticSegmentation.register(config, segmenter, exist_ok=True)
    # Under the config that carries code, transformers finds the processor by its name, and stock folders keep theirs.
    processors = {"pil": SemanticMask2FormerImageProcessor, "torchvision": SemanticMask2FormerImageProcessor}
    AutoImageProcessor.register(HubMask2FormerConfig, image_processor_classes=processors, exist_ok=True)
    VIDEO_PROCESSOR_MAPPING.register(Mask2FormerConfig, {}, exist_ok=True)  # see `register_families`
