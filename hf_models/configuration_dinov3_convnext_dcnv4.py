"""Configuration of DINOv3-ConvNeXt with DCNv4 (https://arxiv.org/abs/2401.06197), by default of size T."""

from huggingface_hub.dataclasses import strict
from transformers import DINOv3ConvNextConfig

from .configuration_adopted import GroupsOfWidth


@strict
class DINOv3ConvNextDCNv4Config(GroupsOfWidth, DINOv3ConvNextConfig):
    """Configuration of [`DINOv3ConvNextDCNv4Model`]; the other fields are those of `DINOv3ConvNextConfig`.

    Args:
        group_width: Channels of each aggregation group, which has its own offsets and weights.
    """

    model_type = "dinov3_convnext_dcnv4"
    auto_classes = {"AutoModel": "Model", "AutoBackbone": "Backbone"}

    group_width: int = 32

    @property
    def stage_strides(self) -> list[int]:
        """The first feature map is the image."""
        return [1, *super().stage_strides[1:]]


__all__ = ["DINOv3ConvNextDCNv4Config"]
