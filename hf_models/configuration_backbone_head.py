"""What the configurations of all heads on a backbone share: the backbone's own."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from .auto import register_families
from .remote_code import CodeCarrier

register_families(replace=False)  # `backbone_config` is looked up by its model_type


@strict
class BackboneHeadConfig(CodeCarrier, PreTrainedConfig):
    """The field of every head on a backbone.

    Args:
        backbone_config: Config of the backbone; its `out_features` feed the head. By default it is that of
            `default_backbone`, with the feature maps of `default_stages`.
    """

    sub_configs = {"backbone_config": AutoConfig}
    default_backbone = None  # each head sets the class of a config
    default_stages = slice(1, None)  # of `stage_names`: all but the stem

    backbone_config: dict | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs):
        if self.backbone_config is None:
            self.backbone_config = self.default_backbone()
            self.backbone_config.out_features = self.backbone_config.stage_names[self.default_stages]
        elif isinstance(self.backbone_config, dict):
            self.backbone_config = AutoConfig.for_model(**self.backbone_config)
        super().__post_init__(**kwargs)
