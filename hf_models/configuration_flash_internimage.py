"""FlashInternImage configuration (https://arxiv.org/abs/2401.06197). The defaults are those of FlashInternImage-T."""

from huggingface_hub.dataclasses import strict

from .configuration_base import HierarchicalConfig


@strict
class FlashInternImageConfig(HierarchicalConfig):
    """Configuration of [`FlashInternImageModel`]; shared fields are described in [`HierarchicalConfig`].

    Args:
        groups: Aggregation groups of the DCNv4 operator in each stage; must divide `hidden_sizes`.
        mlp_ratio: Width of the feed-forward network relative to its stage.
        depthwise_kernel_size: Kernel of the depthwise convolution before the offset prediction; `None` for none.
        offset_scale: Factor on the sampling grid **and** the learned offsets. It is not stored in the weights.
        post_norm: Normalise the output of each branch instead of its input.
        layer_scale_init_value: Initial layer scale; `None` for layers without one.
        mlp_output_bias: Whether the second linear layer of the feed-forward network has a bias.
        dcn_output_bias: Whether the output projection of DCNv4 has a bias.
        pooler_expansion: Width of the convolutional pooler relative to the last stage.
        layer_norm_eps: Epsilon of every LayerNorm.
        batch_norm_eps: Epsilon of the BatchNorm in the pooler.
    """

    model_type = "flash_internimage"

    depths: list[int] | tuple[int, ...] = (4, 4, 18, 4)
    groups: list[int] | tuple[int, ...] = (4, 8, 16, 32)
    mlp_ratio: float | int = 4.0
    depthwise_kernel_size: int | None = None
    offset_scale: float | int = 1.0
    post_norm: bool = False
    layer_scale_init_value: float | int | None = None
    mlp_output_bias: bool = False
    dcn_output_bias: bool = False
    pooler_expansion: float | int = 1.5
    drop_path_rate: float | int = 0.1
    layer_norm_eps: float | int = 1e-6
    batch_norm_eps: float | int = 1e-5

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self._check_one_per_stage("groups")
        self._check_positive("groups")
        if self.depthwise_kernel_size is not None:
            self._check_positive("depthwise_kernel_size")
        self._check_ratio("mlp_ratio", "pooler_expansion")
        self._check_divisible("hidden_sizes", by="groups")

    @property
    def normalizes_stages(self) -> bool:
        """Whether each stage ends in a LayerNorm."""
        return not self.post_norm

    @property
    def pooled_size(self) -> int:
        return int(self.hidden_sizes[-1] * self.pooler_expansion)


__all__ = ["FlashInternImageConfig"]
