"""Configuration of FCOS on any backbone (https://arxiv.org/abs/1904.01355)."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from .auto import register_families
from .configuration_base import map_strides
from .configuration_replknet import RepLKNetConfig
from .remote_code import CodeCarrier

register_families(replace=False)  # `backbone_config` is looked up by its model_type


@strict
class BackboneFCOSConfig(CodeCarrier, PreTrainedConfig):
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
    """

    model_type = "backbone_fcos"
    auto_classes = {"AutoModelForObjectDetection": "ForObjectDetection"}
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: dict | PreTrainedConfig | None = None
    fpn_channels: int = 256
    strided_levels: int = 2
    head_convs: int = 4
    group_norm_groups: int = 32
    score_threshold: float | int = 0.05
    candidates_per_level: int = 1000
    nms_threshold: float | int = 0.5
    max_detections: int = 100

    def __post_init__(self, **kwargs):
        if self.backbone_config is None:
            self.backbone_config = RepLKNetConfig()
            self.backbone_config.out_features = self.backbone_config.stage_names[-3:]
        elif isinstance(self.backbone_config, dict):
            self.backbone_config = AutoConfig.for_model(**self.backbone_config)
        super().__post_init__(**kwargs)
        for name in ("fpn_channels", "strided_levels", "candidates_per_level", "max_detections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @property
    def level_strides(self) -> list[int]:
        """Pixels between neighbouring positions, for each level of the pyramid."""
        strides = map_strides(self.backbone_config)
        return strides + [strides[-1] * 2**level for level in range(1, self.strided_levels + 1)]


__all__ = ["BackboneFCOSConfig"]
