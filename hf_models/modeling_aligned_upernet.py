"""UperNet with aligned corners: transformers' own, in which `align_corners=False` is fixed, with the other value.

RepLKNet's model for Cityscapes was trained so.
"""

from .configuration_aligned_upernet import AlignedUperNetConfig
from .modeling_lean_upernet import UperNetForSemanticSegmentation


class AlignedUperNetForSemanticSegmentation(UperNetForSemanticSegmentation):
    """`UperNetForSemanticSegmentation` in which every bilinear resize aligns the corner pixels."""

    config: AlignedUperNetConfig
    config_class = AlignedUperNetConfig

    def __init__(self, config: AlignedUperNetConfig):
        super().__init__(config)
        self.decode_head.align_corners = True
        self.decode_head.psp_modules.align_corners = True


__all__ = ["AlignedUperNetForSemanticSegmentation"]
