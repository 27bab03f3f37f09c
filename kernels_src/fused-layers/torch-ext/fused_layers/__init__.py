"""What lies between the products of a network, on channels-last tokens; each in one pass; for inference."""

from ._layers import (
    add_layer_norm,
    cpu_path,
    depthwise_norm_gelu,
    feed_forward,
    gelu,
    gelu_backward,
    layer_norm,
    linear,
    multiplies_fast,
)

__all__ = [
    "add_layer_norm",
    "cpu_path",
    "depthwise_norm_gelu",
    "feed_forward",
    "gelu",
    "gelu_backward",
    "layer_norm",
    "linear",
    "multiplies_fast",
]
