"""Linear layers of rounded inputs and 8-bit weights, and pairs of them with GELU between; for inference."""

from ._linear import cpu_path, feed_forward, linear, pack

__all__ = ["cpu_path", "feed_forward", "linear", "pack"]
