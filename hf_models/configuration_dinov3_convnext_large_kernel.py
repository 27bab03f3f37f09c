"""Configuration of DINOv3-ConvNeXt with large kernels (https://arxiv.org/abs/2203.06717), by default of size T."""

from huggingface_hub.dataclasses import strict
from transformers import DINOv3ConvNextConfig

from .configuration_adopted import LargeKernels


@strict
class DINOv3ConvNextLargeKernelConfig(LargeKernels, DINOv3ConvNextConfig):
    """Configuration of [`DINOv3ConvNextLargeKernelModel`]; the other fields are those of `DINOv3ConvNextConfig`.

    Args:
        kernel_sizes: Size of the depthwise kernels in each stage.
        small_kernel_size: Size of a parallel small kernel that helps training from scratch; `None` for none.
    """

    model_type = "dinov3_convnext_large_kernel"
    auto_classes = {"AutoModel": "Model", "AutoBackbone": "Backbone"}

    kernel_sizes: list[int] | tuple[int, ...] = (31, 29, 27, 13)
    small_kernel_size: int | None = None

    @property
    def stage_strides(self) -> list[int]:
        """The first feature map is the image."""
        return [1, *super().stage_strides[1:]]


__all__ = ["DINOv3ConvNextLargeKernelConfig"]
