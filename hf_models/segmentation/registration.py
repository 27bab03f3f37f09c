"""Registration of the segmentation heads that transformers lacks; UperNet and Mask2Former are its own."""

from transformers import AutoConfig, AutoModelForSemanticSegmentation

from ..configuration_aligned_upernet import AlignedUperNetConfig
from ..configuration_segformer_head import SegformerHeadConfig
from ..modeling_aligned_upernet import AlignedUperNetForSemanticSegmentation
from ..modeling_segformer_head import SegformerHeadForSemanticSegmentation

SEGMENTERS = [
    (SegformerHeadConfig, SegformerHeadForSemanticSegmentation),
    (AlignedUperNetConfig, AlignedUperNetForSemanticSegmentation),
]


def register_segmenters() -> None:
    """Make the Auto classes know every segmentation head."""
    for config, segmenter in SEGMENTERS:
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForSemanticSegmentation.register(config, segmenter, exist_ok=True)
