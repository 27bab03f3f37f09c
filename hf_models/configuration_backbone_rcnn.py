"""Configuration of Mask R-CNN and Cascade Mask R-CNN on any backbone."""

from huggingface_hub.dataclasses import strict

from .configuration_backbone_head import BackboneHeadConfig
from .configuration_base import map_strides
from .configuration_internimage import InternImageConfig

POSITIVE = ("fpn_channels", "rpn_pre_nms", "rpn_post_nms", "box_fcs", "box_hidden_size", "max_detections")
POSITIVE += ("rpn_train_pre_nms", "rpn_train_post_nms", "rpn_samples", "box_samples")
# What differs in the trainings of the published models: those of one stage, and cascades.
PUBLISHED_TRAINING = {
    "rpn_train_post_nms": (1000, 2000),
    "rpn_inside_anchors": (False, True),
    "rpn_loss_beta": (0.0, 1 / 9),
    "box_best_matches": (True, False),
    "box_loss": ("l1", "giou"),
}


@strict
class BackboneRCNNConfig(BackboneHeadConfig):
    """Configuration of [`BackboneRCNNForObjectDetection`].

    The defaults are those of Mask R-CNN. Cascade Mask R-CNN has three `box_stds`, `box_convs=4` and `box_fcs=1`. What
    is only for training and is `None` becomes what the published models of one stage, or cascades, were trained with.

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
        rpn_train_pre_nms: `rpn_pre_nms` in training mode.
        rpn_train_post_nms: `rpn_post_nms` in training mode.
        rpn_inside_anchors: Whether only anchors that lie inside of the image are learned from.
        rpn_samples: Anchors of each image that are learned from; at most half of them are to find objects.
        rpn_loss_beta: Errors of the deltas of anchors below this count as squares (smooth L1); 0 for none.
        box_samples: Regions of each image that are learned from; at most a quarter of them are to find objects.
        box_ious: For each stage, the overlap with an object from which on a region is to find it. In the published
            cascades it is 0.1 more in each stage.
        box_best_matches: Whether the regions that overlap an object most are to find it, even if they overlap another
            one more.
        box_loss: "l1" for the errors of the deltas, "giou" for the generalised overlap of the boxes.
        box_loss_weight: Weight of this loss; `None` for the published 1 of "l1" and 10 of "giou".
        stage_weights: For each stage, the weight of its losses. In the published cascades it halves in each stage.
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
    rpn_train_pre_nms: int = 2000
    rpn_train_post_nms: int | None = None
    rpn_inside_anchors: bool | None = None
    rpn_samples: int = 256
    rpn_loss_beta: float | int | None = None
    box_samples: int = 512
    box_ious: list[float | int] | tuple[float | int, ...] | None = None
    box_best_matches: bool | None = None
    box_loss: str | None = None
    box_loss_weight: float | int | None = None
    stage_weights: list[float | int] | tuple[float | int, ...] | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.fpn_norm not in (None, "layer"):
            raise ValueError(f'fpn_norm must be "layer" or None, got {self.fpn_norm!r}')
        if not self.box_stds or any(len(stds) != 4 for stds in self.box_stds):
            raise ValueError(f"box_stds must have four numbers for each stage, got {self.box_stds}")
        stages = len(self.box_stds)
        for name, published in PUBLISHED_TRAINING.items():
            if getattr(self, name) is None:
                setattr(self, name, published[stages > 1])
        for name in POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.box_loss not in ("l1", "giou"):
            raise ValueError(f'box_loss must be "l1" or "giou", got {self.box_loss!r}')
        if self.box_loss_weight is None:
            self.box_loss_weight = 10.0 if self.box_loss == "giou" else 1.0
        self.box_ious = self.box_ious or [(5 + stage) / 10 for stage in range(stages)]
        self.stage_weights = self.stage_weights or [0.5**stage for stage in range(stages)]
        for name in ("box_ious", "stage_weights"):
            if len(getattr(self, name)) != stages:
                raise ValueError(f"{name} must have a number for each of {stages} stages, got {getattr(self, name)}")

    @property
    def level_strides(self) -> list[int]:
        """Pixels between neighbouring positions, for each level of the pyramid; the last is half of the one before."""
        strides = map_strides(self.backbone_config)
        return [*strides, 2 * strides[-1]]


__all__ = ["BackboneRCNNConfig"]
