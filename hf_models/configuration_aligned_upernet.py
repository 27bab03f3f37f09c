"""Configuration of a UperNet that aligns corners when it resizes (`align_corners=True` in mmseg)."""

from huggingface_hub.dataclasses import strict
from transformers import UperNetConfig

from .auto import register_families
from .remote_code import CodeCarrier

register_families(replace=False)  # `backbone_config` is looked up by its model_type


@strict
class AlignedUperNetConfig(CodeCarrier, UperNetConfig):
    """Configuration of [`AlignedUperNetForSemanticSegmentation`]; the fields are those of `UperNetConfig`."""

    model_type = "aligned_upernet"
    auto_classes = {"AutoModelForSemanticSegmentation": "ForSemanticSegmentation"}


__all__ = ["AlignedUperNetConfig"]
