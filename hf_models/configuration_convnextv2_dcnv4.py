"""Configuration of ConvNeXt V2 with DCNv4 (https://arxiv.org/abs/2401.06197), by default of size T."""

from huggingface_hub.dataclasses import strict
from transformers import ConvNextV2Config

from .configuration_adopted import GroupsOfWidth


@strict
class ConvNextV2DCNv4Config(GroupsOfWidth, ConvNextV2Config):
    """Configuration of [`ConvNextV2DCNv4Model`]; the other fields are those of `ConvNextV2Config`.

    Args:
        group_width: Channels of each aggregation group, which has its own offsets and weights.
    """

    model_type = "convnextv2_dcnv4"

    group_width: int = 32


__all__ = ["ConvNextV2DCNv4Config"]
