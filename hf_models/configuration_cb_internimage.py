"""Configuration of two InternImages as one backbone (https://arxiv.org/abs/2107.00420, section 3)."""

from huggingface_hub.dataclasses import strict

from .configuration_internimage import InternImageConfig


@strict
class CBInternImageConfig(InternImageConfig):
    """Configuration of [`CBInternImageBackbone`], and of each of the two InternImages in it."""

    model_type = "cb_internimage"
    auto_classes = {"AutoBackbone": "Backbone"}


__all__ = ["CBInternImageConfig"]
