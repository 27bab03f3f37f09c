"""RepLKNet, a backbone of depthwise kernels up to 31x31 (https://arxiv.org/abs/2203.06717)."""

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_replknet import RepLKNetConfig
from .execution import is_untouched
from .input_channels import fit_channels_of
from .large_kernel_conv import ConvNorm, ReparameterizableLargeKernelConv, pointwise_branch
from .layers import DropPath, GlobalAveragePooler
from .modeling_base import (
    HierarchicalBackbone,
    HierarchicalEncoder,
    HierarchicalForImageClassification,
    HierarchicalModel,
    HierarchicalPreTrainedModel,
    HierarchicalStage,
)


def conv_norm(config: RepLKNetConfig, in_channels: int, out_channels: int, kernel_size: int, **kwargs) -> ConvNorm:
    return ConvNorm(
        in_channels,
        out_channels,
        kernel_size,
        eps=config.batch_norm_eps,
        folded=config.batch_norm_folded,
        **kwargs,
    )


def pre_norm(config: RepLKNetConfig, channels: int) -> nn.Module:
    """BatchNorm before a 1x1 convolution, unless it is folded into that convolution."""
    return nn.Identity() if config.batch_norm_folded else nn.BatchNorm2d(channels, eps=config.batch_norm_eps)


class FoldablePreNormBlock(nn.Module):
    """A residual branch of 1x1 convolutions `pointwise1` and `pointwise2` behind a BatchNorm `norm`."""

    def fold_batch_norm(self) -> None:
        self.pointwise1.fold(before=None if isinstance(self.norm, nn.Identity) else self.norm)
        self.pointwise2.fold()
        self.norm = nn.Identity()


class RepLKNetLargeKernelBlock(FoldablePreNormBlock):
    """Large-kernel convolution between 1x1 convolutions."""

    def __init__(self, config: RepLKNetConfig, stage: int):
        super().__init__()
        channels = config.hidden_sizes[stage]
        hidden = int(channels * config.bottleneck_ratio)
        self.norm = pre_norm(config, channels)
        self.pointwise1 = conv_norm(config, channels, hidden, 1, activation=nn.ReLU())
        self.large_kernel = ReparameterizableLargeKernelConv(
            hidden,
            config.kernel_sizes[stage],
            config.small_kernel_size,
            eps=config.batch_norm_eps,
            merged=config.reparameterized,
        )
        self.activation = nn.ReLU()
        self.pointwise2 = conv_norm(config, hidden, channels, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, channels, height, width)."""
        return self.branch(hidden_states)

    def branch(self, hidden_states: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """`forward`, and a residual of the same shape added."""
        hidden_states = self.large_kernel(pointwise_branch(self.pointwise1, hidden_states, before=self.norm))
        return pointwise_branch(self.pointwise2, hidden_states, before=self.activation, residual=residual)


class RepLKNetFeedForward(FoldablePreNormBlock):
    """Feed-forward network of 1x1 convolutions (`ConvFFN`)."""

    def __init__(self, config: RepLKNetConfig, stage: int):
        super().__init__()
        channels = config.hidden_sizes[stage]
        hidden = int(channels * config.mlp_ratio)
        self.norm = pre_norm(config, channels)
        self.pointwise1 = conv_norm(config, channels, hidden, 1)
        self.activation = ACT2FN[config.hidden_act]
        self.pointwise2 = conv_norm(config, hidden, channels, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, channels, height, width)."""
        return self.branch(hidden_states)

    def branch(self, hidden_states: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """`forward`, and a residual of the same shape added."""
        hidden_states = pointwise_branch(self.pointwise1, hidden_states, before=self.norm, after=self.activation)
        return pointwise_branch(self.pointwise2, hidden_states, residual=residual)


class RepLKNetLayer(GradientCheckpointingLayer):
    """A large-kernel block and a feed-forward block, each a residual branch."""

    def __init__(self, config: RepLKNetConfig, stage: int, drop_path_rate: float):
        super().__init__()
        self.large_kernel_block = RepLKNetLargeKernelBlock(config, stage)
        self.feed_forward = RepLKNetFeedForward(config, stage)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, channels, height, width)."""
        for block, kind in (
            (self.large_kernel_block, RepLKNetLargeKernelBlock),
            (self.feed_forward, RepLKNetFeedForward),
        ):
            if is_untouched(block, kind) and is_untouched(self.drop_path, DropPath) and not self.drop_path.training:
                hidden_states = block.branch(hidden_states, residual=hidden_states)
            else:
                hidden_states = hidden_states + self.drop_path(block(hidden_states))
        return hidden_states


class RepLKNetEmbeddings(nn.Module):
    """Stem of four convolutions, two of them depthwise. Stride 4."""

    def __init__(self, config: RepLKNetConfig):
        super().__init__()
        channels = config.hidden_sizes[0]
        self.layers = nn.Sequential(
            conv_norm(config, config.num_channels, channels, 3, stride=2, activation=nn.ReLU()),
            conv_norm(config, channels, channels, 3, groups=channels, activation=nn.ReLU()),
            conv_norm(config, channels, channels, 1, activation=nn.ReLU()),
            conv_norm(config, channels, channels, 3, stride=2, groups=channels, activation=nn.ReLU()),
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch_size, num_channels, height, width) -> (batch_size, channels, height / 4, width / 4)."""
        return self.layers(pixel_values)

    def fold_batch_norm(self) -> None:
        for layer in self.layers:
            layer.fold()


class RepLKNetStage(HierarchicalStage):
    """Transition (but in the first stage) that halves the resolution, then layers."""

    def __init__(self, config: RepLKNetConfig, stage: int, drop_path_rates: list[float]):
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.downsample = nn.Identity()
        if stage > 0:
            self.downsample = nn.Sequential(
                conv_norm(config, config.hidden_sizes[stage - 1], channels, 1, activation=nn.ReLU()),
                conv_norm(config, channels, channels, 3, stride=2, groups=channels, activation=nn.ReLU()),
            )
        self.layers = nn.ModuleList(RepLKNetLayer(config, stage, rate) for rate in drop_path_rates)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns a map in (batch_size, channels, height, width)."""
        hidden_states = self.downsample(hidden_states)
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states

    def fold_batch_norm(self) -> None:
        for layer in self.downsample.children():
            layer.fold()


class RepLKNetEncoder(HierarchicalEncoder):
    def __init__(self, config: RepLKNetConfig):
        super().__init__([RepLKNetStage(config, i, rates) for i, rates in enumerate(config.drop_path_rates())])


class RepLKNetPooler(GlobalAveragePooler):
    """BatchNorm, then the average of the last feature map over all positions."""

    def __init__(self, config: RepLKNetConfig):
        super().__init__()
        self.norm = nn.BatchNorm2d(config.hidden_sizes[-1], eps=config.batch_norm_eps)

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Takes the stage outputs, each (batch_size, channels, height, width); returns (batch_size, channels)."""
        return super().forward((self.norm(feature_maps[-1]),))


class RepLKNetPreTrainedModel(HierarchicalPreTrainedModel):
    config_class = RepLKNetConfig
    base_model_prefix = "replknet"
    _no_split_modules = ["RepLKNetEmbeddings", "RepLKNetLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As the original: PyTorch's defaults."""
        if isinstance(module, nn.Linear):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    @torch.no_grad()
    def merge_reparameterization(self, fold_batch_norm: bool = True) -> "RepLKNetPreTrainedModel":
        """Turn a trained model, in place, into the faster one for deployment that computes the same in evaluation.

        Large and small kernels become one convolution; then each BatchNorm is folded into the convolution beside it,
        except the one that the pooled features pass last. The result can be saved and loaded like any model.

        Args:
            fold_batch_norm: `False` merges the kernels only, as the original's `structural_reparam`.

        Returns:
            The model itself.
        """
        for module in self.modules():
            if isinstance(module, ReparameterizableLargeKernelConv):
                module.merge()
        self.config.reparameterized = True
        if fold_batch_norm and not self.config.batch_norm_folded:
            for module in list(self.modules()):
                if isinstance(module, (RepLKNetEmbeddings, RepLKNetStage, FoldablePreNormBlock)):
                    module.fold_batch_norm()
            self.config.batch_norm_folded = True
        return self


class RepLKNetModel(RepLKNetPreTrainedModel, HierarchicalModel):
    """RepLKNet without a head; `pooler_output` is the average of the normalised last feature map."""

    def __init__(self, config: RepLKNetConfig):
        super().__init__(config)
        self.embeddings = RepLKNetEmbeddings(config)
        self.encoder = RepLKNetEncoder(config)
        self.pooler = RepLKNetPooler(config)
        self.post_init()


class RepLKNetForImageClassification(RepLKNetPreTrainedModel, HierarchicalForImageClassification):
    """RepLKNet with a linear classifier on the pooled features."""

    def __init__(self, config: RepLKNetConfig):
        super().__init__(config)
        self.replknet = RepLKNetModel(config)
        self.classifier = nn.Linear(config.pooled_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()


class RepLKNetBackbone(RepLKNetPreTrainedModel, HierarchicalBackbone):
    """RepLKNet as a backbone; feature maps are the outputs of the stages, before the transition or the final norm."""

    def __init__(self, config: RepLKNetConfig):
        super().__init__(config)
        if config.normalize_features:
            for name, channels in zip(config.stage_names[1:], config.hidden_sizes, strict=True):
                self.feature_norms[name] = nn.BatchNorm2d(channels, eps=config.batch_norm_eps)
        self.embeddings = RepLKNetEmbeddings(config)
        self.encoder = RepLKNetEncoder(config)
        self.post_init()


fit_channels_of(RepLKNetConfig.model_type, "embeddings.layers.0.conv.weight")

__all__ = ["RepLKNetBackbone", "RepLKNetForImageClassification", "RepLKNetModel", "RepLKNetPreTrainedModel"]
