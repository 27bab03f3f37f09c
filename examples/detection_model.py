"""The detector that `finetune_detection.py` trains."""

import math
from typing import Any

import torch
from transformers import AutoBackbone, AutoConfig, AutoImageProcessor, AutoModelForObjectDetection, PreTrainedModel
from transformers.image_utils import SizeDict

from hf_models.configuration_backbone_fcos import BackboneFCOSConfig
from hf_models.configuration_backbone_head import BackboneHeadConfig
from hf_models.configuration_backbone_rcnn import BackboneRCNNConfig
from hf_models.configuration_base import map_strides
from hf_models.configuration_dino_detector import DinoDetectorConfig
from hf_models.errors import InputError
from hf_models.image_processing_detection import DetectionImageProcessor
from hf_models.inference.loading import loading
from hf_models.inference.tasks import task_of

SIZE = 512  # short side of photos for a new head
HEADS = {
    "fcos": BackboneFCOSConfig,
    "faster-rcnn": BackboneRCNNConfig,
    "mask-rcnn": BackboneRCNNConfig,
    "cascade": BackboneRCNNConfig,
    "dino": DinoDetectorConfig,
}
FINEST = {BackboneFCOSConfig: 8, BackboneRCNNConfig: 4, DinoDetectorConfig: 8}  # stride of their first feature map
CASCADE = {
    "box_convs": 4,
    "box_fcs": 1,
    "box_stds": [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]],
}


def new_head(head: str, width: int, options: dict[str, Any]) -> BackboneHeadConfig:
    """The config of a small detector.

    Args:
        head: Key of `HEADS`.
        width: Channels of the pyramid; a DINO is twice as wide.
        options: Further fields.
    """
    groups = {"group_norm_groups": math.gcd(32, width)}
    rcnn = {"fpn_channels": width, "box_hidden_size": 4 * width}
    dino = {"d_model": 2 * width, "encoder_ffn_dim": 8 * width, "decoder_ffn_dim": 8 * width}
    fields = {
        # with what FCOS got after it was published
        "fcos": {"fpn_channels": width, **groups, "box_loss": "giou", "centre_radius": 1.5},
        "faster-rcnn": rcnn | {"with_masks": False},
        "mask-rcnn": rcnn,
        "cascade": rcnn | CASCADE,
        "dino": dino | groups | {"encoder_layers": 3, "decoder_layers": 3, "num_queries": 300},
    }
    return HEADS[head](**fields[head] | options)


def build(
    model: str,
    names: list[str],
    with_masks: bool,
    head: str,
    width: int,
    image_size: int | None,
    finest_stride: int | None = None,
) -> tuple[PreTrainedModel, DetectionImageProcessor]:
    """The model to train, with new layers for these classes, and its image processor.

    Args:
        model: Folder or id on the Hub, of a detector, or of a classifier, whose backbone gets a new head.
        names: Of the classes.
        with_masks: Whether the objects have masks; a detector loses its mask heads if they have none.
        head: See [`new_head`].
        width: The same.
        image_size: Short side of the photos in pixels; by default the detector's.
        finest_stride: Pixels between the positions of the first feature map that a new head sees; by default that of
            the published detectors.

    Raises:
        InputError: There is no such model, or it cannot learn masks from boxes.
    """
    if head == "mask-rcnn" and not with_masks:
        raise InputError("--head mask-rcnn: not every object has a mask. Pass --head faster-rcnn.")
    options = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    masks = {} if with_masks else {"with_masks": False}
    with loading(model, "a model to fine-tune"):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        processor = AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
        if getattr(config, "num_channels", 3) != 3:
            raise InputError(
                f"{model}: takes images of {config.num_channels} channels, photos have 3. Name another one."
            )
        if task_of(config) == "object-detection":
            if not processor.size.shortest_edge or not hasattr(getattr(config, "backbone_config", None), "depths"):
                raise InputError(
                    f"{model}: a {config.model_type}, which this script does not train. Name another one."
                )
            options |= masks if hasattr(config, "with_masks") else {}
            detector = AutoModelForObjectDetection.from_pretrained(
                model, dtype=torch.float32, ignore_mismatched_sizes=True, trust_remote_code=False, **options
            )
        elif type(config) not in AutoBackbone._model_mapping:
            raise InputError(f"{model}: a {config.model_type}, which gives no feature maps. Name another classifier.")
        else:
            # `AutoBackbone.from_pretrained` takes no folders
            backbone_class = AutoBackbone._model_mapping[type(config)]
            config.out_features = config.stage_names[1:]
            strides = dict(zip(config.out_features, map_strides(config), strict=True))
            stages = [stage for stage, stride in strides.items() if stride >= (finest_stride or FINEST[HEADS[head]])]
            backbone = backbone_class.from_pretrained(model, out_features=stages, dtype=torch.float32)
            backbone.config.num_labels = 0  # it has no classifier
            options |= {"backbone_config": backbone.config} | (masks if head == "cascade" else {})
            detector = AutoModelForObjectDetection.from_config(new_head(head, width, options))
            detector.backbone = backbone
            mean, std, image_size = processor.image_mean, processor.image_std, image_size or SIZE
            processor = DetectionImageProcessor(image_mean=mean, image_std=std)
    if image_size:
        processor.size = SizeDict(shortest_edge=image_size, longest_edge=2 * image_size)
    return detector, processor
