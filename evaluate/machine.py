"""Where a measurement runs: what can be chosen, and what the rows of its results say of it."""

import datetime
import platform
from collections.abc import Collection, Iterable
from pathlib import Path

import torch

from hf_models.errors import InputError
from hf_models.hub_kernels import KERNELS, status

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_choice(what: str, chosen: Iterable[str], known: Iterable[str]) -> None:
    """Raise an [`InputError`] that lists what there is, if something chosen is not among it."""
    known = list(known)
    for name in chosen:
        if name not in known:
            raise InputError(f"{name}: no such {what}. Choose from {', '.join(known)}.")


def choose_device(device: str | None) -> str:
    """The device to compute on.

    Args:
        device: "cpu" or "cuda"; `None` for the GPU where there is one.

    Raises:
        InputError: There is no such device here.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_choice("device", [device], ("cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("cuda: PyTorch finds no GPU. Use --device cpu.")
    return device


def machine(device: str, kernels: Collection[str] = KERNELS) -> dict[str, str]:
    """What every row of a result says: the device, which builds of these kernels run there, PyTorch, the date."""
    builds = [
        row.version or f"{row.kernel}: PyTorch reference"
        for row in status()
        if row.device == device and row.kernel in kernels
    ]
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "kernel": "; ".join(builds) or "none",
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
