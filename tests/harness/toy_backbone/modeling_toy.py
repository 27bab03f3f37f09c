"""A toy backbone: three stages of residual 3x3 convolutions."""

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_toy import ToyConfig
from .input_channels import fit_channels_of
from .layers import DropPath, GlobalAveragePooler
from .modeling_base import (
    HierarchicalBackbone,
    HierarchicalEncoder,
    HierarchicalForImageClassification,
    HierarchicalModel,
    HierarchicalPreTrainedModel,
    HierarchicalStage,
)


class ToyLayer(GradientCheckpointingLayer):
    """A residual convolution."""

    def __init__(self, config: ToyConfig, stage: int, drop_path_rate: float):
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.norm = nn.BatchNorm2d(channels, eps=config.batch_norm_eps)
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.activation = ACT2FN[config.hidden_act]
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, channels, height, width)."""
        return hidden_states + self.drop_path(self.activation(self.conv(self.norm(hidden_states))))


class ToyStage(HierarchicalStage):
    """Strided convolution (but in the first stage), then layers."""

    def __init__(self, config: ToyConfig, stage: int, drop_path_rates: list[float]):
        super().__init__()
        sizes = config.hidden_sizes
        self.downsample = nn.Conv2d(sizes[stage - 1], sizes[stage], 3, stride=2, padding=1) if stage else nn.Identity()
        self.blocks = nn.Sequential(*(ToyLayer(config, stage, rate) for rate in drop_path_rates))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns a map in (batch_size, channels, height, width)."""
        return self.blocks(self.downsample(hidden_states))


class ToyEmbeddings(nn.Module):
    """A strided convolution. Stride 2."""

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.conv = nn.Conv2d(config.num_channels, config.hidden_sizes[0], kernel_size=3, stride=2, padding=1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch_size, num_channels, height, width) -> (batch_size, channels, height / 2, width / 2)."""
        return self.conv(pixel_values)


class ToyEncoder(HierarchicalEncoder):
    def __init__(self, config: ToyConfig):
        super().__init__([ToyStage(config, i, rates) for i, rates in enumerate(config.drop_path_rates())])


class ToyPreTrainedModel(HierarchicalPreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"
    _no_split_modules = ["ToyEmbeddings", "ToyLayer"]


class ToyModel(ToyPreTrainedModel, HierarchicalModel):
    """The toy without a head."""

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.embeddings = ToyEmbeddings(config)
        self.encoder = ToyEncoder(config)
        self.pooler = GlobalAveragePooler()
        self.post_init()


class ToyForImageClassification(ToyPreTrainedModel, HierarchicalForImageClassification):
    """The toy with a linear classifier on the pooled features."""

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.toy = ToyModel(config)
        self.classifier = nn.Linear(config.pooled_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()


class ToyBackbone(ToyPreTrainedModel, HierarchicalBackbone):
    """The toy as a backbone; feature maps are the outputs of the stages."""

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.embeddings = ToyEmbeddings(config)
        self.encoder = ToyEncoder(config)
        self.post_init()


fit_channels_of(ToyConfig.model_type, "embeddings.conv.weight")

__all__ = ["ToyBackbone", "ToyForImageClassification", "ToyModel", "ToyPreTrainedModel"]
