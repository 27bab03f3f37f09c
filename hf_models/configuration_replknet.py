"""RepLKNet configuration (https://arxiv.org/abs/2203.06717). The defaults are those of RepLKNet-31B."""

from huggingface_hub.dataclasses import strict

from .configuration_base import HierarchicalConfig


@strict
class RepLKNetConfig(HierarchicalConfig):
    """Configuration of [`RepLKNetModel`]; shared fields are described in [`HierarchicalConfig`].

    Each of the `depths` counts pairs of a large-kernel block and a feed-forward block.

    Args:
        kernel_sizes: Size of the large depthwise kernel in each stage.
        small_kernel_size: Size of the parallel small kernel that helps training; `None` for none.
        bottleneck_ratio: Width of the large-kernel convolution relative to its stage.
        mlp_ratio: Width of the feed-forward block relative to its stage.
        batch_norm_eps: Epsilon of every BatchNorm.
        reparameterized: Whether large and small kernels are merged into one convolution with a bias.
        normalize_features: Whether the Backbone class passes each feature map through a BatchNorm of its own.
        batch_norm_folded: Whether every BatchNorm but the last is folded into the convolution beside it.
    """

    model_type = "replknet"

    hidden_sizes: list[int] | tuple[int, ...] = (128, 256, 512, 1024)
    depths: list[int] | tuple[int, ...] = (2, 2, 18, 2)
    kernel_sizes: list[int] | tuple[int, ...] = (31, 29, 27, 13)
    small_kernel_size: int | None = 5
    bottleneck_ratio: float | int = 1.0
    mlp_ratio: float | int = 4.0
    drop_path_rate: float | int = 0.5
    batch_norm_eps: float | int = 1e-5
    reparameterized: bool = False
    batch_norm_folded: bool = False
    normalize_features: bool = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self._check_kernel_sizes()
        self._check_ratio("bottleneck_ratio", "mlp_ratio")
        if self.batch_norm_folded and not self.reparameterized:
            raise ValueError("batch_norm_folded=True needs reparameterized=True, got reparameterized=False")


__all__ = ["RepLKNetConfig"]
