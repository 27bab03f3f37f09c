"""What lies between the products of a network, on channels-last tokens; each in one pass; for inference."""

from ._layers import (
    add_layer_norm,
    cpu_path,
    depthwise_norm_gelu,
    gelu,
    layer_norm,
    merge_norms_and_kernels,
    pointwise_conv,
    pointwise_conv_is_faster,
)

__all__ = [
    "add_layer_norm",
    "cpu_path",
    "depthwise_norm_gelu",
    "gelu",
    "layer_norm",
    "merge_norms_and_kernels",
    "pointwise_conv",
    "pointwise_conv_is_faster",
]
