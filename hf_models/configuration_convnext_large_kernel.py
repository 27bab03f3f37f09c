"""Configuration of ConvNeXt with large kernels (https://arxiv.org/abs/2203.06717), by default of size T."""

from huggingface_hub.dataclasses import strict
from transformers import ConvNextConfig

from .configuration_adopted import LargeKernels


@strict
class ConvNextLargeKernelConfig(LargeKernels, ConvNextConfig):
    """Configuration of [`ConvNextLargeKernelModel`]; the other fields are those of `ConvNextConfig`.

    Args:
        kernel_sizes: Size of the depthwise kernels in each stage.
        small_kernel_size: Size of a parallel small kernel that helps training from scratch; `None` for none.
    """

    model_type = "convnext_large_kernel"

    kernel_sizes: list[int] | tuple[int, ...] = (31, 29, 27, 13)
    small_kernel_size: int | None = None


__all__ = ["ConvNextLargeKernelConfig"]
