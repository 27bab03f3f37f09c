"""Published detectors: a backbone of ours under a detection head."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from .checkpoint import PublishedCheckpoint, labels_kwargs
from .detection_labels import detection_names

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig


@dataclass(frozen=True, kw_only=True)
class PublishedDetector(PublishedCheckpoint):
    """One published detector; what is not said here is as in [`PublishedCheckpoint`].

    Args:
        backbone: `model_type` of the backbone's config, where it is not `family`.
        head: `model_type` of the config, such as `"backbone_rcnn"`.
        head_kwargs: Where the detector's config differs from the defaults of its class.
        first_stage: The first stage of the backbone whose feature map the head sees.
        label_set: Key of the classes' names, for [`detection_names`].
        preprocessing: Where the image processor differs from the defaults of its class.
    """

    section: ClassVar = "detection"
    metrics: ClassVar = {
        "box_ap": "Box AP",
        "mask_ap": "Mask AP",
        "box_ap_minival": "Box AP on minival",
        "box_ap50": "Box AP at IoU 0.5",
        "box_ap50_2007": "Box AP at IoU 0.5 on VOC 2007",
        "box_ap50_2012": "Box AP at IoU 0.5 on VOC 2012",
    }
    hub_metric: ClassVar = "mean_average_precision"

    head: str
    backbone: str | None = None
    head_kwargs: dict[str, Any] = field(default_factory=dict)
    first_stage: int = 1
    preprocessing: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, entry: dict[str, Any], preprocessing: dict[str, Any]) -> "PublishedDetector":
        return cls(**{"test_set": entry["training_data"][-1]} | entry)

    @property
    def network(self) -> tuple[str, ...]:
        return (self.backbone or self.family, self.head)

    def config(self, num_labels: int | None = None) -> "PreTrainedConfig":
        """The config of this checkpoint, with the names of its classes.

        Args:
            num_labels: Number of classes instead of the published one.
        """
        from transformers import AutoConfig

        backbone = AutoConfig.for_model(self.network[0], **self.config_kwargs)
        backbone.out_features = backbone.stage_names[self.first_stage :]
        labels = {"num_labels": num_labels or self.num_labels}
        if self.label_set and num_labels in (None, self.num_labels):
            labels = labels_kwargs(detection_names(self.label_set))
        return AutoConfig.for_model(self.head, backbone_config=backbone, **self.head_kwargs, **labels)

    def image_processor(self) -> "BaseImageProcessor":
        """An image processor that prepares images as the authors do."""
        from ..image_processing_detection import DetectionImageProcessor

        return DetectionImageProcessor(**self.preprocessing)
