"""FlashInternImage: InternImage with DCNv4 (https://arxiv.org/abs/2401.06197)."""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_flash_internimage import FlashInternImageConfig
from .deformable_conv import DCNv4
from .fused_blocks import block_kernel, compute_block
from .fused_layers import add_branch, add_branch_and_norm, layer_norm
from .input_channels import fit_channels_of
from .layers import ConvPooler, DropPath, residual_scale
from .modeling_base import (
    HierarchicalBackbone,
    HierarchicalEncoder,
    HierarchicalForImageClassification,
    HierarchicalModel,
    HierarchicalPreTrainedModel,
)
from .modeling_internimage import InternImageEmbeddings, InternImageMLP, InternImageStage


class FlashInternImageLayer(GradientCheckpointingLayer):
    """DCNv4 and a feed-forward network, each a residual branch, normalised at its input or output (`post_norm`)."""

    def __init__(self, config: FlashInternImageConfig, stage: int, drop_path_rate: float):
        super().__init__()
        channels, eps = config.hidden_sizes[stage], config.layer_norm_eps
        self.post_norm = config.post_norm
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.dcn = DCNv4(
            channels,
            config.groups[stage],
            depthwise_kernel_size=config.depthwise_kernel_size,
            offset_scale=config.offset_scale,
            output_bias=config.dcn_output_bias,
        )
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = InternImageMLP(config, channels, output_bias=config.mlp_output_bias)
        self.layer_scale1 = residual_scale(channels, config.layer_scale_init_value)
        self.layer_scale2 = residual_scale(channels, config.layer_scale_init_value)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, height, width, channels)."""
        if not self.post_norm and (kernel := block_kernel(self, (DCNv4, InternImageMLP), hidden_states)):
            return compute_block(kernel, self, hidden_states)
        if self.post_norm:
            branch = layer_norm(self.norm1, self.dcn(hidden_states))
            hidden_states = add_branch(hidden_states, branch, self.layer_scale1, self.drop_path)
            branch = layer_norm(self.norm2, self.mlp(hidden_states))
        else:
            branch = self.dcn(layer_norm(self.norm1, hidden_states))
            hidden_states, normalized = add_branch_and_norm(
                hidden_states, branch, self.layer_scale1, self.drop_path, self.norm2
            )
            branch = self.mlp(normalized)
        return add_branch(hidden_states, branch, self.layer_scale2, self.drop_path)


class FlashInternImageEncoder(HierarchicalEncoder):
    def __init__(self, config: FlashInternImageConfig):
        stages = []
        for i, rates in enumerate(config.drop_path_rates()):
            layers = [FlashInternImageLayer(config, i, rate) for rate in rates]
            stages.append(InternImageStage(config, i, layers))
        super().__init__(stages)


class FlashInternImagePreTrainedModel(HierarchicalPreTrainedModel):
    config_class = FlashInternImageConfig
    base_model_prefix = "flash_internimage"
    _no_split_modules = ["InternImageEmbeddings", "FlashInternImageLayer"]


class FlashInternImageModel(FlashInternImagePreTrainedModel, HierarchicalModel):
    """FlashInternImage without a head; `pooler_output` is what the classifier of the published models consumes."""

    def __init__(self, config: FlashInternImageConfig):
        super().__init__(config)
        self.embeddings = InternImageEmbeddings(config)
        self.encoder = FlashInternImageEncoder(config)
        self.pooler = ConvPooler(config)
        self.post_init()


class FlashInternImageForImageClassification(FlashInternImagePreTrainedModel, HierarchicalForImageClassification):
    """FlashInternImage with a linear classifier on the pooled features."""

    def __init__(self, config: FlashInternImageConfig):
        super().__init__(config)
        self.flash_internimage = FlashInternImageModel(config)
        self.classifier = nn.Linear(config.pooled_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()


class FlashInternImageBackbone(FlashInternImagePreTrainedModel, HierarchicalBackbone):
    """FlashInternImage as a backbone; feature maps are the outputs of the stages, before the downsampling."""

    def __init__(self, config: FlashInternImageConfig):
        super().__init__(config)
        self.embeddings = InternImageEmbeddings(config)
        self.encoder = FlashInternImageEncoder(config)
        self.post_init()


fit_channels_of(FlashInternImageConfig.model_type, "embeddings.conv1.weight")

__all__ = [
    "FlashInternImageBackbone",
    "FlashInternImageForImageClassification",
    "FlashInternImageModel",
    "FlashInternImagePreTrainedModel",
]
