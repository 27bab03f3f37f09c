"""What lies between the products of a network, on channels-last tokens; each in one pass; for inference."""

from ._layers import (
    add_layer_norm,
    cpu_path,
    depthwise_norm_gelu,
    feed_forward,
    gelu,
    layer_norm,
    linear,
    merge_norms_and_kernels,
    multiplies_fast,
    pointwise_conv,
)

__all__ = [
    "add_layer_norm",
    "cpu_path",
    "depthwise_norm_gelu",
    "feed_forward",
    "gelu",
    "layer_norm",
    "linear",
    "merge_norms_and_kernels",
    "multiplies_fast",
    "pointwise_conv",
]
