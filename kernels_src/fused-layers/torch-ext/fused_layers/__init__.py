"""What lies between the products of a network, on channels-last tokens; each in one pass; for inference."""

from ._layers import (
    add_depthwise_gelu,
    add_layer_norm,
    attend,
    cpu_path,
    depthwise_norm_gelu,
    feed_forward,
    gelu,
    gelu_backward,
    layer_norm,
    linear,
    merge_norms_and_kernels,
    mix_scales,
    multiplies_fast,
    pointwise_conv,
)

__all__ = [
    "add_depthwise_gelu",
    "add_layer_norm",
    "attend",
    "cpu_path",
    "depthwise_norm_gelu",
    "feed_forward",
    "gelu",
    "gelu_backward",
    "layer_norm",
    "linear",
    "merge_norms_and_kernels",
    "mix_scales",
    "multiplies_fast",
    "pointwise_conv",
]
