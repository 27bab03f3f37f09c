"""InternImage configuration (https://arxiv.org/abs/2211.05778). The defaults are those of InternImage-T."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from .configuration_base import HierarchicalConfig


@strict
class InternImageConfig(HierarchicalConfig):
    """Configuration of [`InternImageModel`]; shared fields are described in [`HierarchicalConfig`].

    Args:
        groups: Aggregation groups of the DCNv3 operator in each stage; must divide `hidden_sizes`.
        mlp_ratio: Width of the feed-forward network relative to its stage.
        depthwise_kernel_size: Kernel of the depthwise convolution from which DCNv3 predicts offsets and weights.
        offset_scale: Factor on the sampling grid **and** the learned offsets. It is not stored in the weights.
        post_norm: Normalise the output of each branch instead of its input.
        res_post_norm: Normalise the output too (pre-norm layers without layer scale only).
        layer_scale_init_value: Initial layer scale; `None` for layers without one.
        center_feature_scale: Blend the input of DCNv3 into its output with a learned, per-group gate.
        intermediate_norm_layers: Layers of the third stage that are followed by an extra LayerNorm.
        pooler_type: `"conv"` (1x1 convolution, BatchNorm, activation, average) or `"attention"`
            (attention pooling over the sum of the last two stages).
        pooler_expansion: Width of the convolutional pooler relative to the last stage.
        pooler_hidden_size: Width of the attention pooler.
        pooler_num_heads: Heads of the attention pooler.
        pooler_output_size: Width of the attention pooler's output.
        pooler_upsampling: Factor by which the attention pooler enlarges the last feature map.
        metadata_hidden_size: Width of the head that sees when and where an image was taken; `None` for none.
        layer_norm_eps: Epsilon of every LayerNorm, but for those inside that head.
        batch_norm_eps: Epsilon of the BatchNorm in the convolutional pooler.
    """

    model_type = "internimage"

    depths: list[int] | tuple[int, ...] = (4, 4, 18, 4)
    groups: list[int] | tuple[int, ...] = (4, 8, 16, 32)
    mlp_ratio: float | int = 4.0
    depthwise_kernel_size: int = 3
    offset_scale: float | int = 1.0
    post_norm: bool = False
    res_post_norm: bool = False
    layer_scale_init_value: float | int | None = None
    center_feature_scale: bool = False
    intermediate_norm_layers: list[int] | tuple[int, ...] = ()
    pooler_type: Literal["conv", "attention"] = "conv"
    pooler_expansion: float | int = 1.5
    pooler_hidden_size: int = 1024
    pooler_num_heads: int = 16
    pooler_output_size: int = 768
    pooler_upsampling: int = 2
    metadata_hidden_size: int | None = None
    drop_path_rate: float | int = 0.1
    layer_norm_eps: float | int = 1e-6
    batch_norm_eps: float | int = 1e-5

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self._check_one_per_stage("groups")
        self._check_positive("groups", "depthwise_kernel_size")
        self._check_positive("pooler_hidden_size", "pooler_num_heads", "pooler_output_size", "pooler_upsampling")
        self._check_ratio("mlp_ratio", "pooler_expansion")
        if self.metadata_hidden_size is not None:
            self._check_positive("metadata_hidden_size")
        self._check_divisible("hidden_sizes", by="groups")

    @property
    def normalizes_stages(self) -> bool:
        """Whether each stage ends in a LayerNorm."""
        return not self.post_norm or self.center_feature_scale

    @property
    def pooled_size(self) -> int:
        if self.pooler_type == "attention":
            return self.pooler_output_size
        return int(self.hidden_sizes[-1] * self.pooler_expansion)


__all__ = ["InternImageConfig"]
