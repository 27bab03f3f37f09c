"""Configuration of ConvNeXt with DCNv4 (https://arxiv.org/abs/2401.06197), by default of size T."""

from huggingface_hub.dataclasses import strict
from transformers import ConvNextConfig

from .configuration_adopted import GroupsOfWidth


@strict
class ConvNextDCNv4Config(GroupsOfWidth, ConvNextConfig):
    """Configuration of [`ConvNextDCNv4Model`]; the other fields are those of `ConvNextConfig`.

    Args:
        group_width: Channels of each aggregation group, which has its own offsets and weights.
    """

    model_type = "convnext_dcnv4"

    group_width: int = 32


__all__ = ["ConvNextDCNv4Config"]
