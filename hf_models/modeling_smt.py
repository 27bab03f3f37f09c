"""SMT, the Scale-Aware Modulation Transformer (https://arxiv.org/abs/2307.08579)."""

import math
from functools import partial
from types import ModuleType

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.activations import ACT2FN, GELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_smt import SMTConfig
from .fused_layers import add_branch, add_branch_and_norm, is_depthwise, layer_norm
from .input_channels import fit_channels_of
from .kernel_layers import multiply
from .layers import (
    DropPath,
    GlobalAveragePooler,
    depthwise_layer,
    linear,
    on_channels_first,
    on_channels_last,
    pointwise_conv,
    residual_scale,
    split_last,
)
from .modeling_base import (
    HierarchicalBackbone,
    HierarchicalEncoder,
    HierarchicalForImageClassification,
    HierarchicalModel,
    HierarchicalPreTrainedModel,
    HierarchicalStage,
)
from .scale_aware_modulation import (
    add_conv_and_activate,
    attention_kernel,
    is_pointwise,
    mix_scales,
    mixes_scales,
    mixing_tensors,
)
from .smt_blocks import compute_layer, layer_kernel
from .strided_conv import conv_norm_relu, downsample


class SMTModulation(nn.Module):
    """Scale-aware modulation: multi-head mixed convolution, scale-aware aggregation, product with the value.

    Head i convolves its share of the channels with a depthwise kernel of size 3 + 2 i (paper, sections 3.1 and 3.2).
    """

    def __init__(self, config: SMTConfig, channels: int):
        super().__init__()
        heads = config.num_modulation_heads
        head_channels = channels // heads
        expanded = channels * config.expand_ratio
        self.value = nn.Linear(channels, channels, bias=config.qkv_bias)
        self.context = nn.Linear(channels, channels, bias=config.qkv_bias)
        self.head_convs = nn.ModuleList(depthwise_layer(head_channels, 3 + 2 * i) for i in range(heads))
        self.expand = nn.Conv2d(channels, expanded, kernel_size=1, groups=head_channels)
        self.batch_norm = nn.BatchNorm2d(expanded, eps=config.batch_norm_eps)
        self.activation = ACT2FN[config.hidden_act]
        self.reduce = nn.Conv2d(expanded, channels, kernel_size=1)
        self.projection = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, height, width, channels)."""
        context = linear(self.context, hidden_states)
        mixed = mix_scales(self.head_convs, self.expand, self.batch_norm, self.activation, context)
        modulator = on_channels_first(partial(pointwise_conv, self.reduce), mixed)
        modulated = modulator * linear(self.value, hidden_states)
        return self.dropout(linear(self.projection, modulated))

    def suits_kernel(self) -> bool:
        """Whether the layers are as in the published models, for [`compute_layer`]."""
        return (
            mixes_scales(self.head_convs, self.expand, self.batch_norm)
            and type(self.activation) is GELUActivation
            and self.activation.act is F.gelu
            and is_pointwise(self.reduce)
            and self.reduce.groups == 1
            and type(self.value) is type(self.context) is nn.Linear
        )

    def mix(self, kernel: ModuleType, hidden_states: torch.Tensor) -> torch.Tensor:
        """All but the projection, by the compiled kernel."""
        context = multiply(kernel, self.context, hidden_states)
        tensors = mixing_tensors(self.head_convs, self.expand, self.batch_norm)
        mixed = kernel.mix_scales(context, *tensors, self.batch_norm.eps)
        modulator = kernel.linear(mixed, self.reduce.weight.flatten(1), self.reduce.bias)
        return modulator.mul_(multiply(kernel, self.value, hidden_states))


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`attn_implementation="eager"`: takes (N, heads, L, D), returns (N, L, heads, D) and the weights."""
    weights = F.dropout((query @ key.mT * scaling).softmax(dim=-1), p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2), weights


class SMTAttention(nn.Module):
    """Multi-head self-attention over all positions, plus a depthwise convolution of the values."""

    def __init__(self, config: SMTConfig, channels: int, num_heads: int):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.query = nn.Linear(channels, channels, bias=config.qkv_bias)
        self.key_value = nn.Linear(channels, 2 * channels, bias=config.qkv_bias)
        self.attention_dropout = config.attention_probs_dropout_prob
        self.local_conv = depthwise_layer(channels, kernel_size=3)
        self.projection = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def _split_heads(self, tokens: torch.Tensor) -> torch.Tensor:
        # (N, H, W, C) -> (N, H * W, heads, C / heads) -> (N, heads, H * W, C / heads)
        return split_last(tokens.flatten(1, 2), self.num_heads, -1).transpose(1, 2)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, height, width, channels)."""
        query, key_value = linear(self.query, hidden_states), linear(self.key_value, hidden_states)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.attention_dropout if self.training else 0.0
        kernel = None
        if attention is sdpa_attention_forward and not dropout:
            kernel = attention_kernel(self.local_conv, query, key_value)
        if kernel:
            mixed = kernel(query, key_value, self.num_heads, self.local_conv.weight, self.local_conv.bias)
        else:
            key, value = key_value.chunk(2, dim=-1)
            attended, _ = attention(
                self,
                self._split_heads(query),
                self._split_heads(key),
                self._split_heads(value),
                attention_mask=None,
                scaling=(query.shape[-1] // self.num_heads) ** -0.5,
                dropout=dropout,
                is_causal=False,
            )
            # (N, H * W, heads, C / heads) -> (N, H, W, C)
            mixed = attended.reshape(hidden_states.shape) + on_channels_first(self.local_conv, value)
        return self.dropout(linear(self.projection, mixed))

    def suits_kernel(self) -> bool:
        """As [`SMTModulation.suits_kernel`]; here also whether PyTorch's attention is chosen."""
        chosen = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        return (
            chosen is sdpa_attention_forward
            and (self.attention_dropout == 0 or not self.training)
            and is_depthwise(self.local_conv, 3)
            and type(self.query) is type(self.key_value) is nn.Linear
        )

    def mix(self, kernel: ModuleType, hidden_states: torch.Tensor) -> torch.Tensor:
        """All but the projection, by the compiled kernel."""
        query, key_value = (multiply(kernel, layer, hidden_states) for layer in (self.query, self.key_value))
        return kernel.attend(query, key_value, self.num_heads, self.local_conv.weight, self.local_conv.bias)


class SMTMLP(nn.Module):
    """Feed-forward network with a depthwise convolution between its linear layers."""

    def __init__(self, config: SMTConfig, channels: int, ratio: float):
        super().__init__()
        hidden = int(channels * ratio)
        self.fc1 = nn.Linear(channels, hidden)
        self.depthwise_conv = depthwise_layer(hidden, kernel_size=3)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, height, width, channels)."""
        hidden_states = linear(self.fc1, hidden_states)
        hidden_states = add_conv_and_activate(self.depthwise_conv, self.activation, hidden_states)
        return self.dropout(linear(self.fc2, self.dropout(hidden_states)))


class SMTLayer(GradientCheckpointingLayer):
    """Token mixer and feed-forward network, each normalised before and added to its input."""

    def __init__(self, config: SMTConfig, stage: int, layer: int, drop_path_rate: float):
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.norm1 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        if config.layer_uses_attention(stage, layer):
            self.mixer = SMTAttention(config, channels, config.num_attention_heads[stage])
        else:
            self.mixer = SMTModulation(config, channels)
        self.layer_scale1 = residual_scale(channels, config.layer_scale_init_value)
        self.norm2 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.mlp = SMTMLP(config, channels, config.mlp_ratios[stage])
        self.layer_scale2 = residual_scale(channels, config.layer_scale_init_value)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, height, width, channels)."""
        if kernel := layer_kernel(self, (SMTModulation, SMTAttention, SMTMLP), hidden_states):
            return compute_layer(kernel, self, hidden_states)
        branch = self.mixer(layer_norm(self.norm1, hidden_states))
        hidden_states, normalized = add_branch_and_norm(
            hidden_states, branch, self.layer_scale1, self.drop_path, self.norm2
        )
        return add_branch(hidden_states, self.mlp(normalized), self.layer_scale2, self.drop_path)


class SMTEmbeddings(nn.Module):
    """Stem: a strided convolution, BatchNorm and ReLU, then non-overlapping 2x2 patches. Stride 4."""

    def __init__(self, config: SMTConfig):
        super().__init__()
        channels, kernel_size = config.hidden_sizes[0], config.stem_kernel_size
        self.conv1 = nn.Conv2d(
            config.num_channels, channels, kernel_size, stride=2, padding=kernel_size // 2, bias=False
        )
        self.batch_norm = nn.BatchNorm2d(channels, eps=config.batch_norm_eps)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(channels, eps=config.embedding_norm_eps)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch_size, num_channels, height, width) -> (batch_size, channels, height / 4, width / 4)."""
        hidden_states = conv_norm_relu(self.conv1, self.batch_norm, pixel_values)
        return on_channels_last(partial(layer_norm, self.norm), self.conv2(hidden_states))


class SMTDownsample(nn.Module):
    """Patch embedding between stages: halves the resolution."""

    def __init__(self, config: SMTConfig, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_channels, eps=config.embedding_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch_size, in_channels, height, width) -> (batch_size, out_channels, height / 2, width / 2)."""
        return on_channels_last(partial(layer_norm, self.norm), downsample(self.conv, hidden_states))


class SMTStage(HierarchicalStage):
    """Downsampling (but in the first stage), layers and a norm whose output is the stage's feature map."""

    def __init__(self, config: SMTConfig, stage: int, drop_path_rates: list[float]):
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.downsample = SMTDownsample(config, config.hidden_sizes[stage - 1], channels) if stage else nn.Identity()
        self.layers = nn.ModuleList(SMTLayer(config, stage, i, rate) for i, rate in enumerate(drop_path_rates))
        self.norm = nn.LayerNorm(channels, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns a map in (batch_size, channels, height, width)."""
        hidden_states = self.downsample(hidden_states).permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return layer_norm(self.norm, hidden_states).permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


class SMTEncoder(HierarchicalEncoder):
    def __init__(self, config: SMTConfig):
        super().__init__([SMTStage(config, i, rates) for i, rates in enumerate(config.drop_path_rates())])


class SMTPreTrainedModel(HierarchicalPreTrainedModel):
    config_class = SMTConfig
    base_model_prefix = "smt"
    _supports_sdpa = True
    _no_split_modules = ["SMTEmbeddings", "SMTLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As the original: convolutions are normal with variance 2 / fan_out."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                init.zeros_(module.bias)


class SMTModel(SMTPreTrainedModel, HierarchicalModel):
    """SMT without a head; `pooler_output` is the average of the last feature map."""

    def __init__(self, config: SMTConfig):
        super().__init__(config)
        self.embeddings = SMTEmbeddings(config)
        self.encoder = SMTEncoder(config)
        self.pooler = GlobalAveragePooler()
        self.post_init()


class SMTForImageClassification(SMTPreTrainedModel, HierarchicalForImageClassification):
    """SMT with a linear classifier on the pooled features."""

    def __init__(self, config: SMTConfig):
        super().__init__(config)
        self.smt = SMTModel(config)
        self.classifier = nn.Linear(config.pooled_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()


class SMTBackbone(SMTPreTrainedModel, HierarchicalBackbone):
    """SMT as a backbone; a stage's feature map is the output of its final norm."""

    def __init__(self, config: SMTConfig):
        super().__init__(config)
        self.embeddings = SMTEmbeddings(config)
        self.encoder = SMTEncoder(config)
        self.post_init()


fit_channels_of(SMTConfig.model_type, "embeddings.conv1.weight")

__all__ = ["SMTBackbone", "SMTForImageClassification", "SMTModel", "SMTPreTrainedModel"]
