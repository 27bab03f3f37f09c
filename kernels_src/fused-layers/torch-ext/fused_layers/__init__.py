"""What lies between the products of a network, on channels-last tokens; each in one pass; for inference."""

from ._layers import (
    add_layer_norm,
    cpu_path,
    depthwise_norm_gelu,
    gelu,
    layer_norm,
    linear,
    linear_is_faster,
    merge_norms_and_kernels,
)

__all__ = [
    "add_layer_norm",
    "cpu_path",
    "depthwise_norm_gelu",
    "gelu",
    "layer_norm",
    "linear",
    "linear_is_faster",
    "merge_norms_and_kernels",
]
