"""A ViT with DCNv4 in the place of attention, and without class token (https://arxiv.org/abs/2401.06197, section 4.4).

Everything else is transformers' own I-JEPA, which is a ViT that classifies by the average of its patches.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithPooling
from transformers.models.ijepa.modeling_ijepa import (
    IJepaEmbeddings,
    IJepaForImageClassification,
    IJepaLayer,
    IJepaModel,
    IJepaPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from .adopted_layers import use_attention_dcnv4
from .configuration_vit_dcnv4 import ViTDCNv4Config
from .input_channels import check_images, fit_channels_of
from .modeling_adopted import OtherLayers


class ViTDCNv4Embeddings(IJepaEmbeddings):
    """I-JEPA's, whose positions are interpolated in a way that programs for all sizes can record."""

    def interpolate_pos_encoding(self, embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Positions (1, patches, hidden_size) for an image; in the size of training they are the learned ones."""
        side = self.patch_size
        positions = self.position_embeddings.unflatten(1, [pixels // side for pixels in self.image_size])
        positions = positions.permute(0, 3, 1, 2)  # (1, rows, columns, C) -> (1, C, rows, columns)
        size = (height // side, width // side)
        positions = F.interpolate(positions, size=size, mode="bicubic", align_corners=False)
        return positions.flatten(2).mT  # (1, C, rows, columns) -> (1, patches, C)


class ViTDCNv4PreTrainedModel(OtherLayers, IJepaPreTrainedModel):
    config: ViTDCNv4Config
    config_class = ViTDCNv4Config
    _no_split_modules = ["ViTDCNv4Embeddings", "IJepaLayer"]
    _can_record_outputs = {"hidden_states": IJepaLayer}  # there is no attention to record

    def change_layers(self) -> None:
        """Put DCNv4 in the place of attention."""
        use_attention_dcnv4(self, self.config.group_width)
        for module in self.modules():
            if type(module) is IJepaEmbeddings:
                module.__class__ = ViTDCNv4Embeddings


class ViTDCNv4Model(ViTDCNv4PreTrainedModel, IJepaModel):
    """A ViT with DCNv4, without a head."""

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        bool_masked_pos: torch.BoolTensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """As `IJepaModel`, for images of any size.

        Args:
            pixel_values: Normalised images (batch_size, num_channels, height, width).
            bool_masked_pos: Patches to mask (batch_size, patches), in a model that was built with a mask token.
            interpolate_pos_encoding: `False` to refuse other sizes than that of training.
        """
        check_images(pixel_values, self.config.num_channels)
        return super().forward(
            pixel_values,
            bool_masked_pos,
            interpolate_pos_encoding=interpolate_pos_encoding is not False,
            grid=grid_of(pixel_values, self.config),  # I-JEPA hands on to its layers what it does not know
            **kwargs,
        )


class ViTDCNv4ForImageClassification(ViTDCNv4PreTrainedModel, IJepaForImageClassification):
    """A ViT with DCNv4 and a classifier of the average of its patches."""

    def __init__(self, config: ViTDCNv4Config):
        IJepaPreTrainedModel.__init__(self, config)  # the rest would build an I-JEPA
        self.num_labels = config.num_labels
        self.ijepa = ViTDCNv4Model(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()


class ViTDCNv4Backbone(BackboneMixin, ViTDCNv4Model):
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
        hidden_states = ViTDCNv4Model.forward(self, pixel_values, **kwargs).hidden_states
        feature_maps = tuple(
            # (N, L, C) -> (N, H, W, C) -> (N, C, H, W)
            self.layernorm(tokens).unflatten(1, grid_of(pixel_values, self.config)).permute(0, 3, 1, 2)
            for name, tokens in zip(self.stage_names, hidden_states, strict=True)
            if name in self.out_features
        )
        return BackboneOutput(feature_maps=feature_maps, hidden_states=hidden_states)


def grid_of(pixel_values: torch.Tensor, config: ViTDCNv4Config) -> tuple[int, int]:
    """Rows and columns of patches."""
    height, width = pixel_values.shape[2:]
    return height // config.patch_size, width // config.patch_size


fit_channels_of(ViTDCNv4Config.model_type, "embeddings.patch_embeddings.projection.weight")

__all__ = ["ViTDCNv4Backbone", "ViTDCNv4ForImageClassification", "ViTDCNv4Model", "ViTDCNv4PreTrainedModel"]
