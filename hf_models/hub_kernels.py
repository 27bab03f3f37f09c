"""Which compiled kernel runs, and why: the only file that knows the `kernels` library.

Each kernel is looked for once per process: a build on this machine first, then the Hub at a pinned commit, then none,
which means the PyTorch reference. `HF_MODELS_KERNELS` is `auto` (the default), `off`, or `require`, which turns a
missing kernel into an error. Builds lie in `HF_MODELS_KERNELS_DIR`, or where the `LOCAL_KERNELS` of the kernels
library says. The Hub is asked only for what `HF_MODELS_TRUST_KERNELS` names: `ORG/NAME@COMMIT`, several with commas.
"""

import base64
import functools
import hashlib
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from .errors import InputError

logger = logging.getLogger(__name__)
MODES = ("auto", "off", "require")


HUB_SECONDS = 4  # how long a Hub that does not answer may hold up a model


@dataclass(frozen=True)
class _Source:
    repo_id: str
    dtypes: tuple[str, ...]


_FLOATS = ("float32", "float64", "bfloat16", "float16")
KERNELS = {
    "deformable-conv": _Source("hf-models/deformable-conv", _FLOATS),
    "large-kernel-conv": _Source("hf-models/large-kernel-conv", _FLOATS),
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

    Cheap after the first call. torch.compile traces through it: the decision is a constant to it. While a program is
    recorded there is no kernel: the program must run where none is installed.

    Args:
        kernel: Name of the kernel, such as "deformable-conv".
        name: Name of the function in the kernel's module.
        device: Type of device, such as "cpu".

    Raises:
        InputError: `HF_MODELS_KERNELS` is "require" and there is no kernel, or is no mode.
    """
    if is_recording():
        return None
    return getattr(_modules[kernel, device], name) if _has_kernel(kernel, device) else None


def is_recording() -> bool:
    """Whether torch.export, torch.jit.trace or an ONNX exporter records a program that is to run elsewhere."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


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
        import kernels  # only here: transformers runs no code from the Hub that needs what is not installed
    except ImportError as error:
        return None, f"the kernels library does not import: {error}"
    folder = default_directory().absolute() / kernel
    candidates = []
    if f"{source.repo_id}=" in os.environ.get("LOCAL_KERNELS", ""):
        # the revision is not looked at, but without one the library asks the Hub for the version's
        candidates.append(("LOCAL_KERNELS", lambda: kernels.get_kernel(source.repo_id, revision="v1", backend=device)))
    if folder.is_dir():
        candidates.append((str(folder), lambda: kernels.get_local_kernel(folder, backend=device)))
    if trusted := _trusted(kernel):
        candidates.append((f"{'@'.join(trusted)} on the Hub", lambda: _load_from_hub(kernels, *trusted, device)))
    reasons = []
    for place, load in candidates:
        try:
            return load(), f"from {place}"
        except Exception as error:  # a kernel that does not load must never stop a model that runs without it
            reasons.append(f"{place}: {' '.join(str(error).split()) or type(error).__name__}")
    if not folder.is_dir():
        reasons.append(f"not built in {folder}")
    if not trusted:
        reasons.append("HF_MODELS_TRUST_KERNELS names no repository of it")
    return None, "; ".join(reasons)


def _trusted(kernel: str) -> tuple[str, str] | None:
    """The repository and the commit of a kernel that the user trusts."""
    for entry in filter(None, os.environ.get("HF_MODELS_TRUST_KERNELS", "").split(",")):
        match = re.fullmatch(r"([\w.-]+/([\w.-]+))@([0-9a-f]{40})", entry.strip())
        if match is None:
            raise InputError(f"HF_MODELS_TRUST_KERNELS: expected ORG/NAME@COMMIT with 40 digits, got {entry}.")
        if match[2] == kernel:
            return match[1], match[3]
    return None


def _load_from_hub(kernels: ModuleType, repo_id: str, commit: str, device: str) -> ModuleType:
    """A kernel at a commit that the user named: from the cache, else from the Hub. Its digest is checked first."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    # the library's own search of the cache wants all of a repository, not just the variant that it fetches
    cache = Path(os.environ.get("KERNELS_CACHE") or constants.HF_HUB_CACHE)
    builds = cache / repo_folder_name(repo_id=repo_id, repo_type="kernel") / "snapshots" / commit / "build"
    try:
        _check_builds(builds)
    except (OSError, ValueError):  # not there, or not all of it
        if constants.HF_HUB_OFFLINE:
            raise
        _await_hub(repo_id, commit)
        kernels.install_kernel(repo_id, revision=commit, backend=device, trust_remote_code=True)
        _check_builds(builds)
    return kernels.get_local_kernel(builds, backend=device)


def _check_builds(builds: Path) -> None:
    variants = [metadata.parent for metadata in builds.glob("*/metadata.json")]
    if not variants:
        raise FileNotFoundError("not in the cache")
    for variant in variants:
        check_digest(variant)
        if json.loads((variant / "metadata.json").read_text(encoding="utf-8")).get("kernel-depends"):
            raise ValueError(f"{variant.name}: wants other kernels, which nobody named. Refused.")


def _await_hub(repo_id: str, commit: str) -> None:
    """Ask for the repository, for a few seconds at most: the library itself would try for half a minute."""
    from huggingface_hub import HfApi

    answers = []

    def ask() -> None:
        try:
            HfApi().kernel_info(repo_id, revision=commit, timeout=2 * HUB_SECONDS)
            answers.append(None)
        except Exception as error:
            answers.append(error)

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no timeout
    asking.start()
    asking.join(HUB_SECONDS)
    if not answers:
        raise TimeoutError(f"the Hub did not answer within {HUB_SECONDS} s")
    if answers[0]:
        raise answers[0]


def check_digest(variant: Path) -> None:
    """Hold every file of a built kernel against the digest in its metadata.json.

    Raises:
        ValueError: A file differs, is missing or is not in the digest; or there is none.
    """
    metadata = json.loads((variant / "metadata.json").read_text(encoding="utf-8"))
    digest = metadata.get("digest") or {}
    if digest.get("algorithm") != "sha256":
        raise ValueError(f"{variant.name}: metadata.json has no sha256 digest. Refused.")
    files = {path.relative_to(variant).as_posix(): path for path in variant.rglob("*") if path.is_file()}
    found = {
        name: base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
        for name, path in files.items()
        if "__pycache__" not in path.parts and name not in ("metadata.json", "metadata.json.sigstore")
    }
    if wrong := sorted(name for name, _ in found.items() ^ digest.get("files", {}).items()):
        raise ValueError(f"{variant.name}: {wrong[0]} is not the file of the kernel's digest. Refused.")


def _report(kernel: str, device: str, module: ModuleType | None, reason: str, level: int) -> KernelStatus:
    chosen, version, path, dtypes = "reference", None, None, ()
    if module is not None:
        chosen = "hub" if reason.endswith("on the Hub") else "local"
        version, path = module.__name__, str(Path(module.__file__).parent)
        dtypes = KERNELS[kernel].dtypes
    logger.log(level, "%s on %s: %s", kernel, device, reason if module else f"PyTorch reference ({reason})")
    return KernelStatus(kernel, device, chosen, version, path, dtypes, reason)


def _devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
