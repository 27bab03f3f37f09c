"""Which compiled kernel runs, and why: the only file that knows the `kernels` library.

Each kernel is looked for once per process: a build on this machine first, then the Hub at a pinned commit, then none,
which means the PyTorch reference. `HF_MODELS_KERNELS` is `auto` (the default), `off`, or `require`, which turns a
missing kernel into an error. Builds lie in `HF_MODELS_KERNELS_DIR`, or where the `LOCAL_KERNELS` of the kernels
library says. The Hub is asked only for a pinned commit, and only with `HF_MODELS_TRUST_KERNELS=1`.
"""

import functools
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from .errors import InputError

logger = logging.getLogger(__name__)
MODES = ("auto", "off", "require")


@dataclass(frozen=True)
class _Source:
    repo_id: str
    revision: str | None  # pinned commit on the Hub; None: not published, so the Hub is never asked
    dtypes: tuple[str, ...]


_FLOATS = ("float32", "float64", "bfloat16", "float16")
KERNELS = {
    "deformable-conv": _Source("hf-models/deformable-conv", None, _FLOATS),
    "large-kernel-conv": _Source("hf-models/large-kernel-conv", None, _FLOATS),
}


@dataclass(frozen=True)
class KernelStatus:
    """What was decided for one kernel on one device."""

    kernel: str
    device: str
    chosen: str  # local, hub or reference
    version: str | None  # the kernel's version and build
    path: str | None
    dtypes: tuple[str, ...]
    reason: str


def default_directory() -> Path:
    """Where builds for this machine lie: one folder for each kernel."""
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HF_MODELS_KERNELS_DIR") or cache / "hf_models" / "kernels")


def status() -> list[KernelStatus]:
    """What runs on this machine, for each kernel and device; loads the kernels."""
    return [_choose(kernel, device)[1] for kernel in KERNELS for device in _devices()]


def get_function(kernel: str, name: str, device: str) -> Callable | None:
    """A function of a compiled kernel, `None` where the PyTorch reference is to run.

    Cheap after the first call. torch.compile traces through it: the decision is a constant to it. While torch.export
    or the ONNX exporter runs there is no kernel: an exported program must run where none is installed.

    Args:
        kernel: Name of the kernel, such as "deformable-conv".
        name: Name of the function in the kernel's module.
        device: Type of device, such as "cpu".

    Raises:
        InputError: `HF_MODELS_KERNELS` is "require" and there is no kernel, or is no mode.
    """
    if torch.compiler.is_exporting():
        return None
    return getattr(_modules[kernel, device], name) if _has_kernel(kernel, device) else None


# Dynamo cannot take a function as a constant, but it reads this dictionary, which is filled before it looks.
_modules: dict[tuple[str, str], ModuleType] = {}


@torch.compiler.assume_constant_result
def _has_kernel(kernel: str, device: str) -> bool:
    module, _ = _choose(kernel, device)
    if module is not None:
        _modules[kernel, device] = module
    return module is not None


@functools.cache
def _choose(kernel: str, device: str) -> tuple[ModuleType | None, KernelStatus]:
    mode = os.environ.get("HF_MODELS_KERNELS", "auto")
    if mode not in MODES:
        raise InputError(f"HF_MODELS_KERNELS: expected one of {', '.join(MODES)}, got {mode}.")
    source = KERNELS[kernel]
    if mode == "off":
        return None, _report(kernel, device, None, "HF_MODELS_KERNELS is off", logging.INFO)
    module, reason = None, f"no build for {device} devices"
    if device in ("cpu", "cuda"):
        module, reason = _load(kernel, source, device)
    if module is None and mode == "require":
        raise InputError(
            f"{kernel}: HF_MODELS_KERNELS is require, but there is no kernel: {reason}. "
            f"Build it with `hf-models kernels build --backend {device}`, or unset HF_MODELS_KERNELS."
        )
    return module, _report(kernel, device, module, reason, logging.INFO if module else logging.WARNING)


def _load(kernel: str, source: _Source, device: str) -> tuple[ModuleType | None, str]:
    """The first of the kernel's builds that loads, and where it comes from or why there is none."""
    try:
        from kernels import get_kernel, get_local_kernel
    except ImportError as error:
        return None, f"the kernels library does not import: {error}"
    consent = os.environ.get("HF_MODELS_TRUST_KERNELS", "") == "1"
    folder = default_directory().absolute() / kernel
    candidates = []
    if f"{source.repo_id}=" in os.environ.get("LOCAL_KERNELS", ""):
        # the revision is not looked at, but without one the library asks the Hub for the version's
        load = functools.partial(get_kernel, source.repo_id, revision=source.revision or "v1", backend=device)
        candidates.append(("LOCAL_KERNELS", load))
    if folder.is_dir():
        candidates.append((str(folder), functools.partial(get_local_kernel, folder, backend=device)))
    if source.revision and consent:
        load = functools.partial(
            get_kernel, source.repo_id, revision=source.revision, backend=device, trust_remote_code=True
        )
        candidates.append((f"{source.repo_id} at {source.revision}", load))
    reasons = []
    for place, load in candidates:
        try:
            return load(), f"from {place}"
        except Exception as error:  # a kernel that does not load must never stop a model that runs without it
            reasons.append(f"{place}: {' '.join(str(error).split()) or type(error).__name__}")
    if not candidates:
        reasons.append(f"not built in {folder}")
        if not source.revision:
            reasons.append("not published on the Hub")
        elif not consent:
            reasons.append("HF_MODELS_TRUST_KERNELS=1 would load it from the Hub")
    return None, "; ".join(reasons)


def _report(kernel: str, device: str, module: ModuleType | None, reason: str, level: int) -> KernelStatus:
    chosen, version, path, dtypes = "reference", None, None, ()
    if module is not None:
        chosen = "hub" if reason.startswith(f"from {KERNELS[kernel].repo_id}") else "local"
        version, path = module.__name__, str(Path(module.__file__).parent)
        dtypes = KERNELS[kernel].dtypes
    logger.log(level, "%s on %s: %s", kernel, device, reason if module else f"PyTorch reference ({reason})")
    return KernelStatus(kernel, device, chosen, version, path, dtypes, reason)


def _devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
