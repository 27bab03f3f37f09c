"""A ViT with DCNv4 in the place of attention, and without class token (https://arxiv.org/abs/2401.06197, section 4.4).

Everything else is transformers' own I-JEPA, which is a ViT that classifies by the average of its patches.
"""

import torch
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.models.ijepa.modeling_ijepa import (
    IJepaForImageClassification,
    IJepaLayer,
    IJepaModel,
    IJepaPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from .adopted_layers import use_attention_dcnv4
from .configuration_vit_dcnv4 import ViTDCNv4Config
from .input_channels import fit_channels_of
from .modeling_adopted import OtherLayers


class ViTDCNv4PreTrainedModel(OtherLayers, IJepaPreTrainedModel):
    config: ViTDCNv4Config
    config_class = ViTDCNv4Config
    _can_record_outputs = {"hidden_states": IJepaLayer}  # there is no attention to record

    def change_layers(self) -> None:
        """Put DCNv4 in the place of attention."""
        use_attention_dcnv4(self, self.config.group_width)

    def _places(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool | None) -> dict:
        """Arguments of I-JEPA's `forward`, which hands on to the layers what it does not know.

        Positions are interpolated where the image has another size than those of training, unless that is forbidden.
        """
        height, width = pixel_values.shape[-2:]
        side = self.config.patch_size
        interpolate = interpolate_pos_encoding is not False
        return {"interpolate_pos_encoding": interpolate, "grid": (height // side, width // side)}


class ViTDCNv4Model(ViTDCNv4PreTrainedModel, IJepaModel):
    """A ViT with DCNv4, without a head."""

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        bool_masked_pos: torch.BoolTensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """See `IJepaModel`; takes images (batch_size, num_channels, height, width) of any size."""
        places = self._places(pixel_values, interpolate_pos_encoding)
        return super().forward(pixel_values, bool_masked_pos, **places, **kwargs)


class ViTDCNv4ForImageClassification(ViTDCNv4PreTrainedModel, IJepaForImageClassification):
    """A ViT with DCNv4 and a classifier of the average of its patches."""

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        **kwargs,
    ) -> ImageClassifierOutput:
        """See `IJepaForImageClassification`; takes images (batch_size, num_channels, height, width) of any size."""
        places = self._places(pixel_values, interpolate_pos_encoding)
        return super().forward(pixel_values, labels, **places, **kwargs)


class ViTDCNv4Backbone(ViTDCNv4PreTrainedModel, BackboneMixin, IJepaModel):
    """A ViT with DCNv4 as a backbone: what the named layers return, each normalised as the last one is."""

    has_attentions = False
    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]

    def __init__(self, config: ViTDCNv4Config):
        super().__init__(config)
        self.num_features = [config.hidden_size] * len(config.stage_names)

    @can_return_tuple
    @filter_output_hidden_states
    def forward(self, pixel_values: torch.Tensor, **kwargs) -> BackboneOutput:
        """Compute feature maps.

        Args:
            pixel_values: Normalised images (batch_size, num_channels, height, width) of any size.

        Returns:
            `feature_maps`: one (batch_size, hidden_size, height / patch_size, width / patch_size) for each of
            `out_features`.
        """
        places = self._places(pixel_values, interpolate_pos_encoding=True)
        hidden_states = IJepaModel.forward(self, pixel_values, **places, **kwargs).hidden_states
        feature_maps = tuple(
            # (N, L, C) -> (N, H, W, C) -> (N, C, H, W)
            self.layernorm(tokens).unflatten(1, places["grid"]).permute(0, 3, 1, 2)
            for name, tokens in zip(self.stage_names, hidden_states, strict=True)
            if name in self.out_features
        )
        return BackboneOutput(feature_maps=feature_maps, hidden_states=hidden_states)


fit_channels_of(ViTDCNv4Config.model_type, "embeddings.patch_embeddings.projection.weight")

__all__ = ["ViTDCNv4Backbone", "ViTDCNv4ForImageClassification", "ViTDCNv4Model", "ViTDCNv4PreTrainedModel"]
