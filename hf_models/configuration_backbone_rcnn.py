"""Configuration of Mask R-CNN and Cascade Mask R-CNN on any backbone."""

from huggingface_hub.dataclasses import strict

from .configuration_backbone_head import BackboneHeadConfig
from .configuration_base import map_strides
from .configuration_internimage import InternImageConfig


@strict
class BackboneRCNNConfig(BackboneHeadConfig):
    """Configuration of [`BackboneRCNNForObjectDetection`].

    The defaults are those of Mask R-CNN. Cascade Mask R-CNN has three `box_stds`, `box_convs=4` and `box_fcs=1`.

    Args:
        backbone_config: Config of the backbone, InternImage-T by default; its `out_features`, each of half the
            resolution of the one before, feed the pyramid.
        fpn_channels: Channels of each level of the feature pyramid.
        fpn_norm: "layer" for LayerNorms in the pyramid, `None` for none.
        anchor_scale: Side of a square anchor, in strides of its level.
        rpn_pre_nms: Candidates that each level may have.
        rpn_post_nms: Proposals for each image.
        rpn_nms_threshold: Overlap above which the worse one of two candidates of a level is no proposal.
        roi_finest_scale: Features of regions below twice this side in pixels come from the finest level.
        box_convs: Convolutions of the box head, each with a BatchNorm.
        box_fcs: Linear layers of the box head, before those that predict.
        box_hidden_size: Width of these linear layers.
        box_stds: For each stage, what the (dx, dy, dw, dh) that it predicts are multiplied by.
        with_masks: Whether there are mask heads, one for each stage.
        mask_convs: Convolutions of a mask head.
        score_threshold: Detections have higher scores.
        nms_threshold: Overlap above which the worse one of two boxes of a class is no detection.
        max_detections: Detections for each image.
    """

    model_type = "backbone_rcnn"
    auto_classes = {
        "AutoModelForObjectDetection": "ForObjectDetection",
        "AutoModelForInstanceSegmentation": "ForObjectDetection",
        "AutoModelForImageSegmentation": "ForObjectDetection",  # what `pipeline("image-segmentation")` loads
    }
    default_backbone = InternImageConfig

    fpn_channels: int = 256
    fpn_norm: str | None = None
    anchor_scale: float | int = 8
    rpn_pre_nms: int = 1000
    rpn_post_nms: int = 1000
    rpn_nms_threshold: float | int = 0.7
    roi_finest_scale: float | int = 56
    box_convs: int = 0
    box_fcs: int = 2
    box_hidden_size: int = 1024
    box_stds: list[list[float | int]] | tuple[tuple[float | int, ...], ...] = ((0.1, 0.1, 0.2, 0.2),)
    with_masks: bool = True
    mask_convs: int = 4
    score_threshold: float | int = 0.05
    nms_threshold: float | int = 0.5
    max_detections: int = 100

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for name in ("fpn_channels", "rpn_pre_nms", "rpn_post_nms", "box_fcs", "box_hidden_size", "max_detections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.fpn_norm not in (None, "layer"):
            raise ValueError(f'fpn_norm must be "layer" or None, got {self.fpn_norm!r}')
        if not self.box_stds or any(len(stds) != 4 for stds in self.box_stds):
            raise ValueError(f"box_stds must have four numbers for each stage, got {self.box_stds}")

    @property
    def level_strides(self) -> list[int]:
        """Pixels between neighbouring positions, for each level of the pyramid; the last is half of the one before."""
        strides = map_strides(self.backbone_config)
        return [*strides, 2 * strides[-1]]


__all__ = ["BackboneRCNNConfig"]
