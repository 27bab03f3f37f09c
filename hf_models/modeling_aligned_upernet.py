"""UperNet with aligned corners: transformers' own, in which `align_corners=False` is fixed, with the other value.

RepLKNet's model for Cityscapes was trained so.
"""

import torch
import torch.nn.functional as F
from transformers import UperNetForSemanticSegmentation
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.utils.generic import can_return_tuple

from .configuration_aligned_upernet import AlignedUperNetConfig
from .saved_weights import OneSetOfWeights


class AlignedUperNetForSemanticSegmentation(OneSetOfWeights, UperNetForSemanticSegmentation):
    """`UperNetForSemanticSegmentation` in which every bilinear resize aligns the corner pixels."""

    config: AlignedUperNetConfig
    config_class = AlignedUperNetConfig
    accepts_loss_kwargs = False  # the loss is a mean: Trainer divides it where it accumulates gradients

    def __init__(self, config: AlignedUperNetConfig):
        super().__init__(config)
        self.decode_head.align_corners = True
        self.decode_head.psp_modules.align_corners = True

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> SemanticSegmenterOutput:
        """Segment a batch of images; see [`UperNetForSemanticSegmentation`].

        Args:
            pixel_values: Normalised images (batch_size, num_channels, height, width).
            labels: Class of each pixel (batch_size, height, width).
            output_hidden_states: Whether to return the backbone's hidden states.
            return_dict: `False` for a tuple.
        """
        outputs = self.backbone(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self._resize(self.decode_head(outputs.feature_maps), pixel_values)
        loss = None
        if labels is not None:
            loss = self._loss(logits, labels)
            if self.auxiliary_head is not None:
                auxiliary_logits = self._resize(self.auxiliary_head(outputs.feature_maps), pixel_values)
                loss = loss + self.config.auxiliary_loss_weight * self._loss(auxiliary_logits, labels)
        return SemanticSegmenterOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)

    def _resize(self, logits: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        return F.interpolate(logits, size=pixel_values.shape[2:], mode="bilinear", align_corners=True)

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels, ignore_index=self.config.loss_ignore_index)


__all__ = ["AlignedUperNetForSemanticSegmentation"]
