"""From a photo and the name of a model to an answer: reading images, loading models, classifying."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "classify_images": "classify",
    "default_checkpoint": "default",
    "load_classifier": "classify",
    "load_model": "loading",
    "read_image": "images",
}


def __getattr__(name: str) -> Any:
    """The public functions, imported when they are asked for: whoever wants a path only waits for no PyTorch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


__all__ = ["classify_images", "default_checkpoint", "load_classifier", "load_model", "read_image"]
