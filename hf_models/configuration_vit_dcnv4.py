"""Configuration of a ViT with DCNv4 (https://arxiv.org/abs/2401.06197, section 4.4), by default of size B/16."""

from huggingface_hub.dataclasses import strict
from transformers import IJepaConfig
from transformers.backbone_utils import BackboneConfigMixin

from .configuration_adopted import check_group_width
from .remote_code import CodeCarrier


@strict
class ViTDCNv4Config(CodeCarrier, BackboneConfigMixin, IJepaConfig):
    """Configuration of [`ViTDCNv4Model`]; the other fields are those of `IJepaConfig`.

    Those of attention (`num_attention_heads`, `attention_probs_dropout_prob`) mean nothing here.

    Args:
        group_width: Channels of each aggregation group, which has its own offsets and weights.
        out_features: Names of the feature maps that the Backbone class returns, out of `stage_names`: "stem", and
            "stage1" and so on for the layers.
        out_indices: The same as indices into `stage_names`.
    """

    model_type = "vit_dcnv4"
    auto_classes = {
        "AutoModel": "Model",
        "AutoModelForImageClassification": "ForImageClassification",
        "AutoBackbone": "Backbone",
    }

    group_width: int = 32
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        self.stage_names = ["stem"] + [f"stage{layer}" for layer in range(1, self.num_hidden_layers + 1)]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)
        check_group_width(self.group_width, hidden_size=[self.hidden_size])

    @property
    def output_stride(self) -> int:
        """Pixels between neighbouring positions of every feature map."""
        return self.patch_size

    @property
    def stage_strides(self) -> list[int]:
        """The same for each of `stage_names`."""
        return [self.output_stride] * len(self.stage_names)


__all__ = ["ViTDCNv4Config"]
