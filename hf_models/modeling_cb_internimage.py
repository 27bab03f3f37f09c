"""Two InternImages as one backbone, of which the first assists the second (https://arxiv.org/abs/2107.00420).

It is CBNetV2's "dense higher-level composition": each stage of the lead begins with its input and what all stages of
the assistant from that one on have found. Only the lead's feature maps are seen outside.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils.output_capturing import OutputRecorder

from .configuration_cb_internimage import CBInternImageConfig
from .layers import LayerScale, on_channels_last
from .modeling_base import HierarchicalBackbone, HierarchicalStage
from .modeling_internimage import InternImageEmbeddings, InternImageEncoder, InternImagePreTrainedModel


class HalfPrecisionScale(LayerScale):
    """A LayerScale whose factors are rounded to half precision, as the authors do it in training and in tests."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns a tensor (..., channels)."""
        return hidden_states * self.scale.half().to(hidden_states.dtype)


class CBInternImageEncoder(nn.Module):
    """The stages of both InternImages."""

    def __init__(self, config: CBInternImageConfig):
        super().__init__()
        sizes = config.hidden_sizes
        self.assistant = InternImageEncoder(config)
        self.lead = InternImageEncoder(config)
        # links[i][j] leads from stage i + 1 + j of the assistant to stage i of the lead
        self.links = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(higher, size, kernel_size=1) for higher in sizes[i + 1 :])
            for i, size in enumerate(sizes)
        )
        self.scales = nn.ModuleList(HalfPrecisionScale(size, initial_value=1.0) for size in sizes)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Takes the stem's output (batch_size, channels, height, width); returns it and the lead's stages' outputs."""
        assistant = self.assistant(hidden_states)[1:]
        feature_maps = (hidden_states,)
        for i, (stage, links, scale) in enumerate(zip(self.lead.stages, self.links, self.scales, strict=True)):
            added = assistant[i]
            for link, feature_map in zip(links, assistant[i + 1 :], strict=True):
                added = added + F.interpolate(link(feature_map), size=added.shape[2:], mode="nearest")
            hidden_states = stage(hidden_states, on_channels_last(scale, added))
            feature_maps += (hidden_states,)
        return feature_maps


class CBInternImageBackbone(InternImagePreTrainedModel, HierarchicalBackbone):
    """Two InternImages with one stem; feature maps are the outputs of the second one's stages."""

    config: CBInternImageConfig
    config_class = CBInternImageConfig
    base_model_prefix = "cb_internimage"
    _can_record_outputs = {"hidden_states": OutputRecorder(HierarchicalStage, layer_name="lead")}

    def __init__(self, config: CBInternImageConfig):
        super().__init__(config)
        self.embeddings = InternImageEmbeddings(config)
        self.encoder = CBInternImageEncoder(config)
        self.post_init()


__all__ = ["CBInternImageBackbone"]
