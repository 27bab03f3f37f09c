"""Configuration of a UperNet that aligns corners when it resizes (`align_corners=True` in mmseg)."""

from huggingface_hub.dataclasses import strict
from transformers import UperNetConfig


@strict
class AlignedUperNetConfig(UperNetConfig):
    """Configuration of [`AlignedUperNetForSemanticSegmentation`]; the fields are those of `UperNetConfig`."""

    model_type = "aligned_upernet"


__all__ = ["AlignedUperNetConfig"]
