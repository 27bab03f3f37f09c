"""`hf-models env` and `hf-models --version`."""

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from .. import __version__
from ..errors import printable, reason

PACKAGES = ("torch", "torchvision", "transformers", "huggingface_hub", "kernels", "datasets", "accelerate")
PACKAGES += ("numpy", "pillow", "safetensors", "onnx", "onnxruntime", "timm", "typer")
VARIABLES = ("HF_MODELS_", "LOCAL_KERNELS", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hf-models {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


def env() -> None:
    """Print versions, device and kernels, to report a problem with."""
    print(f"{'hf-models':16} {__version__}")
    print(f"{'python':16} {platform.python_version()} ({platform.platform()})")
    for package in PACKAGES:
        print(f"{package:16} {_installed(package)}")
    for name in sorted(os.environ):
        if name.startswith(VARIABLES):
            print(f"{name}={printable(os.environ[name])}")
    sys.stdout.flush()  # what follows loads PyTorch and the kernels, which may be what fails
    try:
        for line in _hardware():
            print(line)
    except Exception as error:
        print(f"{'device':16} unknown ({printable(reason(error))})")


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _hardware() -> Iterator[str]:
    """A line for each device, and one for each kernel on it."""
    import torch

    from ..hub_kernels import status

    yield f"{'cpu':16} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        capability = ".".join(map(str, torch.cuda.get_device_capability(index)))
        yield f"{'cuda':16} {torch.cuda.get_device_name(index)}, capability {capability}, CUDA {torch.version.cuda}"
    for row in status():
        build = "PyTorch reference" if row.chosen == "reference" else f"{row.chosen} build {row.version}"
        yield f"{row.kernel} on {row.device}: {build}"
