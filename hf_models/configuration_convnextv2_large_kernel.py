"""Configuration of ConvNeXt V2 with large kernels (https://arxiv.org/abs/2203.06717), by default of size T."""

from huggingface_hub.dataclasses import strict
from transformers import ConvNextV2Config

from .configuration_adopted import LargeKernels


@strict
class ConvNextV2LargeKernelConfig(LargeKernels, ConvNextV2Config):
    """Configuration of [`ConvNextV2LargeKernelModel`]; the other fields are those of `ConvNextV2Config`.

    Args:
        kernel_sizes: Size of the depthwise kernels in each stage.
        small_kernel_size: Size of a parallel small kernel that helps training from scratch; `None` for none.
    """

    model_type = "convnextv2_large_kernel"

    kernel_sizes: list[int] | tuple[int, ...] = (31, 29, 27, 13)
    small_kernel_size: int | None = None


__all__ = ["ConvNextV2LargeKernelConfig"]
