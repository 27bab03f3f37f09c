"""Configuration of a backbone with the SegFormer head of mmseg (https://arxiv.org/abs/2105.15203, section 3.2)."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from .auto import register_families
from .configuration_internimage import InternImageConfig
from .remote_code import CodeCarrier

register_families(replace=False)  # `backbone_config` is looked up by its model_type


@strict
class SegformerHeadConfig(CodeCarrier, PreTrainedConfig):
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
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: dict | PreTrainedConfig | None = None
    hidden_size: int = 256
    classifier_dropout_prob: float | int = 0.1
    initializer_range: float | int = 0.02
    loss_ignore_index: int = 255

    def __post_init__(self, **kwargs):
        if self.backbone_config is None:
            self.backbone_config = InternImageConfig()
            self.backbone_config.out_features = self.backbone_config.stage_names[1:]
        elif isinstance(self.backbone_config, dict):
            self.backbone_config = AutoConfig.for_model(**self.backbone_config)
        super().__post_init__(**kwargs)


__all__ = ["SegformerHeadConfig"]
