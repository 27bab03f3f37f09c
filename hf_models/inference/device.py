"""The device on which a model runs."""

import torch

from ..errors import InputError

DEVICES = ("cpu", "cuda")


def default_device() -> str:
    """The GPU where PyTorch finds one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve_device(device: str | None) -> str:
    """The device that the user named, or the default where the user named none.

    Raises:
        InputError: `device` is none of "cpu" and "cuda", or there is no GPU.
    """
    if device is None:
        return default_device()
    if device not in DEVICES:
        raise InputError(f"{device}: no such device. Choose from {', '.join(DEVICES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("cuda: PyTorch finds no GPU. Use --device cpu.")
    return device
