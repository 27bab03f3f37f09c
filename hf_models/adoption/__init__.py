"""Large kernels and DCNv4 in networks of others: one call changes a model, and what it saves loads again."""

from .adopt import adopt_dcnv4, adopt_large_kernels
from .class_token import drop_class_token

__all__ = ["adopt_dcnv4", "adopt_large_kernels", "drop_class_token"]
