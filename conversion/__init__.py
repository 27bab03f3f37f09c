"""Conversion of original checkpoints. Installed as `hf_models.conversion`."""

from .convert import convert
from .verify import verify

__all__ = ["convert", "verify"]
