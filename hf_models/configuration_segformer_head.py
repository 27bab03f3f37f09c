"""Configuration of a backbone with the SegFormer head of mmseg (https://arxiv.org/abs/2105.15203, section 3.2)."""

from huggingface_hub.dataclasses import strict

from .configuration_backbone_head import BackboneHeadConfig
from .configuration_internimage import InternImageConfig


@strict
class SegformerHeadConfig(BackboneHeadConfig):
    """Configuration of [`SegformerHeadForSemanticSegmentation`].

    Args:
        backbone_config: Config of the backbone, InternImage-T by default; its `out_features` feed the head.
        hidden_size: Channels that every feature map is projected to.
        classifier_dropout_prob: Probability with which whole channels are dropped before the classifier.
        initializer_range: Standard deviation of the classifier's normal initialisation.
        loss_ignore_index: Label of pixels that the loss leaves out.
    """

    model_type = "segformer_head"
    auto_classes = {"AutoModelForSemanticSegmentation": "ForSemanticSegmentation"}
    default_backbone = InternImageConfig

    hidden_size: int = 256
    classifier_dropout_prob: float | int = 0.1
    initializer_range: float | int = 0.02
    loss_ignore_index: int = 255


__all__ = ["SegformerHeadConfig"]
