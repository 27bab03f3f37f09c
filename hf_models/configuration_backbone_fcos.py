"""Configuration of FCOS on any backbone (https://arxiv.org/abs/1904.01355)."""

from huggingface_hub.dataclasses import strict

from .configuration_backbone_head import BackboneHeadConfig
from .configuration_base import map_strides
from .configuration_replknet import RepLKNetConfig


@strict
class BackboneFCOSConfig(BackboneHeadConfig):
    """Configuration of [`BackboneFCOSForObjectDetection`].

    Args:
        backbone_config: Config of the backbone, RepLKNet-31B by default; its `out_features`, each of half the
            resolution of the one before, feed the pyramid.
        fpn_channels: Channels of each level of the feature pyramid, and of the head.
        strided_levels: Levels of the pyramid beyond those of the feature maps.
        head_convs: Convolutions in each of the head's two towers.
        group_norm_groups: Groups of the norms between them.
        score_threshold: Scores of classes, before they are multiplied by the centreness, are higher.
        candidates_per_level: Pairs of a position and a class that each level may propose.
        nms_threshold: Overlap above which the worse one of two boxes of a class is no detection.
        max_detections: Detections for each image.
        box_loss: What boxes are learned by: "iou" for the logarithm of their overlap, "giou" for the generalised one.
        centre_radius: Strides around the centre of an object within which points learn to find it; `None` for all
            points inside of its box.
    """

    model_type = "backbone_fcos"
    auto_classes = {"AutoModelForObjectDetection": "ForObjectDetection"}
    default_backbone = RepLKNetConfig
    default_stages = slice(-3, None)

    fpn_channels: int = 256
    strided_levels: int = 2
    head_convs: int = 4
    group_norm_groups: int = 32
    score_threshold: float | int = 0.05
    candidates_per_level: int = 1000
    nms_threshold: float | int = 0.5
    max_detections: int = 100
    box_loss: str = "iou"
    centre_radius: float | int | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for name in ("fpn_channels", "strided_levels", "candidates_per_level", "max_detections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.box_loss not in ("iou", "giou"):
            raise ValueError(f'box_loss must be "iou" or "giou", got {self.box_loss!r}')

    @property
    def level_strides(self) -> list[int]:
        """Pixels between neighbouring positions, for each level of the pyramid."""
        strides = map_strides(self.backbone_config)
        return strides + [strides[-1] * 2**level for level in range(1, self.strided_levels + 1)]


__all__ = ["BackboneFCOSConfig"]
