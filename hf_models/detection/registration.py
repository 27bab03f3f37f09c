"""Registration of the detectors."""

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from ..configuration_backbone_fcos import BackboneFCOSConfig
from ..configuration_backbone_rcnn import BackboneRCNNConfig
from ..configuration_dino_detector import DinoDetectorConfig
from ..modeling_backbone_fcos import BackboneFCOSForObjectDetection
from ..modeling_backbone_rcnn import BackboneRCNNForObjectDetection
from ..modeling_dino_detector import DinoDetectorForObjectDetection

# A new detector is one line here.
DETECTORS: list[tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = [
    (BackboneRCNNConfig, BackboneRCNNForObjectDetection),
    (BackboneFCOSConfig, BackboneFCOSForObjectDetection),
    (DinoDetectorConfig, DinoDetectorForObjectDetection),
]


def register_detectors() -> None:
    """Make the Auto classes know every detector."""
    for config, detector in DETECTORS:
        AutoConfig.register(config.model_type, config, exist_ok=True)
        for auto_class in config.auto_classes:
            getattr(modeling_auto, auto_class).register(config, detector, exist_ok=True)
        VIDEO_PROCESSOR_MAPPING.register(config, {}, exist_ok=True)  # see `register_families`
