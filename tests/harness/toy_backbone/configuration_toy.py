"""Configuration of a toy backbone: three stages of plain convolutions, strides of 2, 4 and 8 pixels."""

from huggingface_hub.dataclasses import strict

from .configuration_base import HierarchicalConfig


@strict
class ToyConfig(HierarchicalConfig):
    """Configuration of [`ToyModel`]; shared fields are described in [`HierarchicalConfig`].

    Args:
        batch_norm_eps: Epsilon of every BatchNorm.
    """

    model_type = "toy"
    stem_stride = 2

    hidden_sizes: list[int] | tuple[int, ...] = (16, 32, 64)
    depths: list[int] | tuple[int, ...] = (1, 1, 1)
    batch_norm_eps: float = 1e-5


__all__ = ["ToyConfig"]
