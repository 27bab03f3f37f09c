"""What lies between the products of a network, on channels-last tokens; each in one pass; for inference."""

from ._layers import (
    add_depthwise_gelu,
    add_layer_norm,
    attend,
    cpu_path,
    depthwise_norm_gelu,
    gelu,
    layer_norm,
    mix_scales,
)

__all__ = [
    "add_depthwise_gelu",
    "add_layer_norm",
    "attend",
    "cpu_path",
    "depthwise_norm_gelu",
    "gelu",
    "layer_norm",
    "mix_scales",
]
