"""InternImage, a backbone of deformable convolutions DCNv3 (https://arxiv.org/abs/2211.05778)."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_base import HierarchicalConfig
from .configuration_internimage import InternImageConfig
from .deformable_conv import DCNv3
from .fused_blocks import block_kernel, compute_block
from .fused_layers import activate, add_branch, add_branch_and_norm, layer_norm
from .input_channels import fit_channels_of
from .int8_linear import feed_forward
from .internimage_metadata import MetadataForImageClassification, metadata_head
from .layers import ConvPooler, DropPath, linear, on_channels_last, residual_scale, split_last
from .modeling_base import (
    HierarchicalBackbone,
    HierarchicalEncoder,
    HierarchicalModel,
    HierarchicalPreTrainedModel,
    HierarchicalStage,
)


class InternImageMLP(nn.Module):
    """Feed-forward network."""

    def __init__(self, config: HierarchicalConfig, channels: int, output_bias: bool = True):
        super().__init__()
        hidden = int(channels * config.mlp_ratio)
        self.fc1 = nn.Linear(channels, hidden)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(hidden, channels, bias=output_bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (..., channels)."""
        return feed_forward(self.fc1, self.activation, self.fc2, hidden_states)


class InternImageLayer(GradientCheckpointingLayer):
    """DCNv3 and a feed-forward network, each a residual branch.

    A branch is normalised at its input, at its output (`post_norm`) or at both (`res_post_norm`), then scaled.
    """

    def __init__(self, config: InternImageConfig, stage: int, drop_path_rate: float):
        super().__init__()
        channels, eps = config.hidden_sizes[stage], config.layer_norm_eps
        self.post_norm = config.post_norm
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.dcn = DCNv3(
            channels,
            config.groups[stage],
            depthwise_kernel_size=config.depthwise_kernel_size,
            offset_scale=config.offset_scale,
            center_feature_scale=config.center_feature_scale,
            hidden_act=config.hidden_act,
            layer_norm_eps=eps,
        )
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = InternImageMLP(config, channels)
        normalizes_both = config.res_post_norm and not config.post_norm and config.layer_scale_init_value is None
        self.is_plain = not (config.post_norm or normalizes_both)
        self.res_post_norm1 = nn.LayerNorm(channels, eps=eps) if normalizes_both else nn.Identity()
        self.res_post_norm2 = nn.LayerNorm(channels, eps=eps) if normalizes_both else nn.Identity()
        self.layer_scale1 = residual_scale(channels, config.layer_scale_init_value)
        self.layer_scale2 = residual_scale(channels, config.layer_scale_init_value)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, height, width, channels)."""
        if self.is_plain and (kernel := block_kernel(self, (DCNv3, InternImageMLP), hidden_states)):
            return compute_block(kernel, self, hidden_states)
        if self.post_norm:
            branch = layer_norm(self.norm1, self.dcn(hidden_states))
            hidden_states = add_branch(hidden_states, branch, self.layer_scale1, self.drop_path)
            branch = layer_norm(self.norm2, self.mlp(hidden_states))
        else:
            branch = layer_norm(self.res_post_norm1, self.dcn(layer_norm(self.norm1, hidden_states)))
            hidden_states, normalized = add_branch_and_norm(
                hidden_states, branch, self.layer_scale1, self.drop_path, self.norm2
            )
            branch = layer_norm(self.res_post_norm2, self.mlp(normalized))
        return add_branch(hidden_states, branch, self.layer_scale2, self.drop_path)


class InternImageEmbeddings(nn.Module):
    """Stem: two strided convolutions, each normalised, an activation between them. Stride 4."""

    def __init__(self, config: HierarchicalConfig):
        super().__init__()
        channels, eps = config.hidden_sizes[0], config.layer_norm_eps
        self.conv1 = nn.Conv2d(config.num_channels, channels // 2, kernel_size=3, stride=2, padding=1)
        self.norm1 = nn.LayerNorm(channels // 2, eps=eps)
        self.activation = ACT2FN[config.hidden_act]
        self.conv2 = nn.Conv2d(channels // 2, channels, kernel_size=3, stride=2, padding=1)
        self.norm2 = nn.LayerNorm(channels, eps=eps)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch_size, num_channels, height, width) -> (batch_size, channels, height / 4, width / 4)."""
        hidden_states = on_channels_last(partial(layer_norm, self.norm1), self.conv1(pixel_values))
        hidden_states = on_channels_last(partial(activate, self.activation), hidden_states)
        return on_channels_last(partial(layer_norm, self.norm2), self.conv2(hidden_states))


class InternImageDownsample(nn.Module):
    """Strided convolution and norm between stages: halves the resolution."""

    def __init__(self, in_channels: int, out_channels: int, eps: float):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(out_channels, eps=eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch_size, in_channels, height, width) -> (batch_size, out_channels, height / 2, width / 2)."""
        return on_channels_last(partial(layer_norm, self.norm), self.conv(hidden_states))


class InternImageStage(HierarchicalStage):
    """Downsampling (but in the first stage), layers, and a norm in the variants that have one.

    Args:
        config: Configuration of the model.
        stage: Index of the stage.
        layers: The layers of the stage.
        norms_after: Layers followed by a LayerNorm of their own.
    """

    def __init__(
        self, config: HierarchicalConfig, stage: int, layers: list[nn.Module], norms_after: tuple[int, ...] = ()
    ):
        super().__init__()
        channels, eps = config.hidden_sizes[stage], config.layer_norm_eps
        self.downsample = (
            InternImageDownsample(config.hidden_sizes[stage - 1], channels, eps) if stage else nn.Identity()
        )
        self.layers = nn.ModuleList(layers)
        self.norms_after = list(norms_after)
        self.intermediate_norms = nn.ModuleList(nn.LayerNorm(channels, eps=eps) for _ in norms_after)
        self.norm = nn.LayerNorm(channels, eps=eps) if config.normalizes_stages else nn.Identity()

    def forward(self, hidden_states: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Takes and returns a map (batch_size, channels, height, width); `added` is added after the downsampling."""
        hidden_states = self.downsample(hidden_states)
        if added is not None:
            hidden_states = hidden_states + added
        hidden_states = hidden_states.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        for i, layer in enumerate(self.layers):
            hidden_states = layer(hidden_states)
            if i in self.norms_after:
                hidden_states = layer_norm(self.intermediate_norms[self.norms_after.index(i)], hidden_states)
        return layer_norm(self.norm, hidden_states).permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


class InternImageEncoder(HierarchicalEncoder):
    def __init__(self, config: InternImageConfig):
        stages = []
        for i, rates in enumerate(config.drop_path_rates()):
            layers = [InternImageLayer(config, i, rate) for rate in rates]
            norms_after = config.intermediate_norm_layers if i == 2 else ()
            stages.append(InternImageStage(config, i, layers, norms_after))
        super().__init__(stages)


class InternImageQueryPooler(nn.Module):
    """Attention pooling over the sum of the last two stages (InternImage-H and G, `clip_projector`).

    The mean token asks, all tokens answer; there is no residual connection and no position embedding.
    """

    def __init__(self, config: InternImageConfig):
        super().__init__()
        width, eps = config.pooler_hidden_size, config.layer_norm_eps
        self.num_heads = config.pooler_num_heads
        self.upsampling = config.pooler_upsampling
        self.output_stride = config.output_stride
        self.stage3_projection = nn.Conv2d(config.hidden_sizes[-2], width, kernel_size=1)
        self.stage4_projection = nn.Conv2d(config.hidden_sizes[-1], width * self.upsampling**2, kernel_size=1)
        self.query_norm = nn.LayerNorm(width, eps=eps)
        self.key_norm = nn.LayerNorm(width, eps=eps)
        self.value_norm = nn.LayerNorm(width, eps=eps)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.projection = nn.Linear(width, config.pooler_output_size)
        self.norm = nn.LayerNorm(config.pooler_output_size, eps=eps)

    def _split_heads(self, tokens: torch.Tensor) -> torch.Tensor:
        # (N, L, C) -> (N, L, heads, C / heads) -> (N, heads, L, C / heads)
        return split_last(tokens, self.num_heads, -1).transpose(1, 2)

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Takes the stage outputs, each (batch_size, channels, height, width); returns (batch_size, output_size)."""
        stage3 = self.stage3_projection(feature_maps[-2])
        # (N, width * r * r, H, W) -> (N, width, H * r, W * r)
        stage4 = F.pixel_shuffle(self.stage4_projection(feature_maps[-1]), self.upsampling)
        if stage3.shape != stage4.shape:
            raise ValueError(
                f"pixel_values: the attention pooler needs image sides that are multiples of {self.output_stride} "
                f"(config.pooler_type), got feature maps of {tuple(feature_maps[-2].shape[2:])} and "
                f"{tuple(feature_maps[-1].shape[2:])}"
            )
        tokens = (stage3 + stage4).flatten(2).transpose(1, 2)  # (N, C, H, W) -> (N, C, L) -> (N, L, C)
        attended = F.scaled_dot_product_attention(
            self._split_heads(linear(self.query, self.query_norm(tokens.mean(dim=1, keepdim=True)))),
            self._split_heads(linear(self.key, self.key_norm(tokens))),
            self._split_heads(linear(self.value, self.value_norm(tokens))),
        )
        return self.norm(linear(self.projection, attended.flatten(1)))  # (N, heads, 1, C / heads) -> (N, C)


class InternImagePreTrainedModel(HierarchicalPreTrainedModel):
    config_class = InternImageConfig
    base_model_prefix = "internimage"
    _no_split_modules = ["InternImageEmbeddings", "InternImageLayer"]


class InternImageModel(InternImagePreTrainedModel, HierarchicalModel):
    """InternImage without a head; `pooler_output` is what the classifier of the published models consumes."""

    def __init__(self, config: InternImageConfig):
        super().__init__(config)
        self.embeddings = InternImageEmbeddings(config)
        self.encoder = InternImageEncoder(config)
        self.pooler = InternImageQueryPooler(config) if config.pooler_type == "attention" else ConvPooler(config)
        self.post_init()


class InternImageForImageClassification(InternImagePreTrainedModel, MetadataForImageClassification):
    """InternImage with a linear classifier on the pooled features, and on metadata in the variant that takes it."""

    def __init__(self, config: InternImageConfig):
        super().__init__(config)
        self.internimage = InternImageModel(config)
        self.classifier = nn.Linear(config.pooled_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.metadata_head = metadata_head(config)
        self.post_init()


class InternImageBackbone(InternImagePreTrainedModel, HierarchicalBackbone):
    """InternImage as a backbone; feature maps are the outputs of the stages, before the downsampling."""

    def __init__(self, config: InternImageConfig):
        super().__init__(config)
        self.embeddings = InternImageEmbeddings(config)
        self.encoder = InternImageEncoder(config)
        self.post_init()


fit_channels_of(InternImageConfig.model_type, "embeddings.conv1.weight")

__all__ = [
    "InternImageBackbone",
    "InternImageForImageClassification",
    "InternImageModel",
    "InternImagePreTrainedModel",
]
