"""A backbone with mmseg's SegFormer head: project each feature map, upsample all to the first, fuse, classify.

`SegformerForSemanticSegmentation` of transformers has another head: linear layers with neither BatchNorm nor ReLU, and
the stages in reverse order. The weights of one do not fit the other.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import load_backbone
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from .configuration_segformer_head import SegformerHeadConfig
from .saved_weights import OneSetOfWeights
from .sharding import Shardable


class ConvNormReLU(nn.Module):
    """1x1 convolution, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.batch_norm = nn.BatchNorm2d(out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch_size, in_channels, height, width) -> (batch_size, out_channels, height, width)."""
        return F.relu(self.batch_norm(self.conv(hidden_states)))


class SegformerHead(nn.Module):
    """Fuses feature maps into logits at the resolution of the first one."""

    def __init__(self, config: SegformerHeadConfig, channels: list[int]):
        super().__init__()
        self.projections = nn.ModuleList(ConvNormReLU(width, config.hidden_size) for width in channels)
        self.fusion = ConvNormReLU(len(channels) * config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout2d(config.classifier_dropout_prob)
        self.classifier = nn.Conv2d(config.hidden_size, config.num_labels, kernel_size=1)

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Takes the feature maps, highest resolution first; returns (batch_size, num_labels, height, width)."""
        size = feature_maps[0].shape[2:]
        projected = [
            F.interpolate(projection(feature_map), size=size, mode="bilinear", align_corners=False)
            for projection, feature_map in zip(self.projections, feature_maps, strict=True)
        ]
        return self.classifier(self.dropout(self.fusion(torch.cat(projected, dim=1))))


class SegformerHeadForSemanticSegmentation(Shardable, OneSetOfWeights, PreTrainedModel):
    """Any backbone with the SegFormer head of mmseg."""

    config: SegformerHeadConfig
    config_class = SegformerHeadConfig
    accepts_loss_kwargs = False  # the loss is a mean: Trainer divides it where it accumulates gradients
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True

    def __init__(self, config: SegformerHeadConfig):
        super().__init__(config)
        self.backbone = load_backbone(config)
        self.decode_head = SegformerHead(config, self.backbone.channels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            init.normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> SemanticSegmenterOutput:
        """Segment a batch of images.

        Args:
            pixel_values: Normalised images (batch_size, num_channels, height, width).
            labels: Class of each pixel (batch_size, height, width).
            output_hidden_states: Whether to return the backbone's hidden states.
            return_dict: `False` for a tuple.

        Returns:
            `logits` (batch_size, num_labels, height, width) at the size of the input, and the `loss` if labels were
            given.
        """
        outputs = self.backbone(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self.decode_head(outputs.feature_maps)
        logits = F.interpolate(logits, size=pixel_values.shape[2:], mode="bilinear", align_corners=False)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits, labels, ignore_index=self.config.loss_ignore_index)
        return SemanticSegmenterOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


__all__ = ["SegformerHeadForSemanticSegmentation"]
