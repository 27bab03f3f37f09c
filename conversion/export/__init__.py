"""Exporting a model to formats that other runtimes load. Installed as `hf_models.conversion.export`."""

from .model import export

__all__ = ["export"]
