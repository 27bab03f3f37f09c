"""UperNet of transformers in less than half of the memory: what it returns, and the same weights.

Its levels never lie side by side at full size, and the auxiliary head runs where there are labels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import UperNetForSemanticSegmentation as StockUperNet
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.upernet.modeling_upernet import UperNetConvModule, UperNetHead
from transformers.utils.generic import can_return_tuple

from .dense_conv import conv3x3, dense_conv
from .execution import is_untouched, only_computes
from .layers import channels_last, pointwise_conv
from .saved_weights import OneSetOfWeights
from .sharding import Shardable


class UperNetForSemanticSegmentation(Shardable, OneSetOfWeights, StockUperNet):
    """As in transformers, and saved under its name: what loads there loads here, and the other way round."""

    _no_split_modules = ["UperNetHead", "UperNetFCNHead"]
    accepts_loss_kwargs = False  # the loss is a mean: Trainer divides it where it accumulates gradients
    supports_gradient_checkpointing = True  # in the backbone

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> SemanticSegmenterOutput:
        """Segment a batch of images; see [`transformers.UperNetForSemanticSegmentation`].

        Args:
            pixel_values: Normalised images (batch_size, num_channels, height, width).
            labels: Class of each pixel (batch_size, height, width).
            output_hidden_states: Whether to return the backbone's hidden states.
            return_dict: `False` for a tuple.
        """
        outputs = self.backbone(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self._resize(upernet_scores(self.decode_head, outputs.feature_maps), pixel_values)
        loss = None
        if labels is not None:
            loss = self._loss(logits, labels)
            if self.auxiliary_head is not None:
                auxiliary_logits = self._resize(self.auxiliary_head(outputs.feature_maps), pixel_values)
                loss = loss + self.config.auxiliary_loss_weight * self._loss(auxiliary_logits, labels)
        return SemanticSegmenterOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)

    def _resize(self, logits: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        size, align_corners = pixel_values.shape[2:], self.decode_head.align_corners
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels, ignore_index=self.config.loss_ignore_index)


def upernet_scores(head: nn.Module, feature_maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """`head(feature_maps)`, for transformers' head without gradients.

    The head resizes all levels to the size of the first, concatenates them, and convolves the result. At 512 x 2048
    pixels that takes 0.5 GB, and as much again for a copy in the memory layout of the convolution. The convolution of
    a concatenation is the sum of the convolutions of its parts, so here one level is resized at a time.

    Args:
        head: A UperNetHead, or what stands in its place.
        feature_maps: (batch_size, channels, height, width) each, from the largest to the smallest.

    Returns:
        (batch_size, num_labels, height, width), with the size of the first map.
    """
    if not (only_computes() and is_untouched(head, UperNetHead) and _is_untouched(head.fpn_bottleneck)):
        return head(feature_maps)
    levels = [layer(feature) for layer, feature in zip(head.lateral_convs, feature_maps[:-1], strict=True)]
    pooled = torch.cat((feature_maps[-1], *head.psp_modules(feature_maps[-1])), dim=1)
    levels.append(_convolved(head.bottleneck, channels_last(pooled)))
    for i in range(len(levels) - 1, 0, -1):
        levels[i - 1] = levels[i - 1] + _resized(head, levels[i], levels[i - 1].shape)
    for i, layer in enumerate(head.fpn_convs):
        levels[i] = _convolved(layer, levels[i])
    return pointwise_conv(head.classifier, _fused(head, levels))


def _convolved(module: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`module(hidden_states)`, for a UperNetConvModule with 3x3 weights by [`dense_conv`]."""
    if not is_untouched(module, UperNetConvModule):
        return module(hidden_states)
    return module.activation(module.batch_norm(dense_conv(module.conv, hidden_states)))


def _is_untouched(module: nn.Module) -> bool:
    return is_untouched(module, UperNetConvModule) and is_untouched(module.conv, nn.Conv2d)


def _fused(head: UperNetHead, levels: list[torch.Tensor]) -> torch.Tensor:
    """`head.fpn_bottleneck` of all levels; takes them out of the list."""
    conv, shape, dtype = head.fpn_bottleneck.conv, levels[0].shape, levels[0].dtype
    total = None  # in half precision a sum would be rounded once a level
    for weight in conv.weight.split(head.channels, dim=1):  # (C, levels * C, 3, 3) -> (C, C, 3, 3) each
        part = conv3x3(_resized(head, levels.pop(0), shape), weight)
        total = part.to(torch.promote_types(dtype, torch.float32)) if total is None else total.add_(part)
        del part
    return head.fpn_bottleneck.activation(head.fpn_bottleneck.batch_norm(total.to(dtype)))


def _resized(head: UperNetHead, level: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A level at the height and width of a shape (batch_size, channels, height, width)."""
    if level.shape == shape:
        return level
    return F.interpolate(level, size=shape[2:], mode="bilinear", align_corners=head.align_corners)


__all__ = ["UperNetForSemanticSegmentation"]
