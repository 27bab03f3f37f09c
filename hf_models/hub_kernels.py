"""Which compiled kernel runs, and why.

Each kernel is looked for once per process: a build of this machine first, then the Hub at a pinned commit, then none,
which means that the PyTorch reference runs. `HF_MODELS_KERNELS` is `auto` (the default), `off`, or `require`, which
turns a missing kernel into an error. Builds lie in one of [`build_directories`], or where the `LOCAL_KERNELS` of the
`kernels` library says. The Hub is asked only for what `HF_MODELS_TRUST_KERNELS` names: `ORG/NAME@COMMIT`, several with
commas.
"""

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from .errors import InputError
from .execution import are_plain, has_stale_counter, is_recording, is_transformed
from .kernel_places import NOT_BUILT, NOT_NAMED, Place, find_kernel

logger = logging.getLogger(__name__)
MODES = ("auto", "off", "require")
OFF = "HF_MODELS_KERNELS is off"


@dataclass(frozen=True)
class _Source:
    repo_id: str
    dtypes: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu", "cuda")
    functions: tuple[str, ...] = ()  # that builds of older sources lack


_FLOATS = ("float32", "float64", "bfloat16", "float16")
# On meta devices, where tensors have only shapes, it matters that these keep less for a gradient than the reference.
_ALL = ("cpu", "cuda", "meta")
KERNELS = {
    "deformable-conv": _Source("hf-models/deformable-conv", _FLOATS, _ALL),
    "large-kernel-conv": _Source("hf-models/large-kernel-conv", _FLOATS),
    "detection-ops": _Source("hf-models/detection-ops", _FLOATS, _ALL),
    "fused-layers": _Source(
        "hf-models/fused-layers", _FLOATS, ("cpu",), ("feed_forward", "pointwise_conv", "mix_scales", "gelu_backward")
    ),
    "int8-linear": _Source("hf-models/int8-linear", ("float32", "bfloat16"), ("cpu",)),
    "winograd-conv": _Source("hf-models/winograd-conv", ("float32",), ("cpu",)),
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
    places: tuple[Place, ...]  # where it was looked for, in this order


def status() -> list[KernelStatus]:
    """What runs on this machine, for each kernel and device; loads the kernels."""
    return [
        _choose(kernel, device)[1]
        for kernel, source in KERNELS.items()
        for device in _devices()
        if device in source.devices
    ]


def get_function(kernel: str, name: str, device: str, *tensors: torch.Tensor | None) -> Callable | None:
    """A function of a compiled kernel, `None` where the PyTorch reference is to run.

    Every operator asks here, and so every operator is right in every mode of PyTorch: a kernel computes numbers and
    gradients, the reference all else. All else is what is recorded as a program (which must run where no kernel is
    installed), transformed by torch.func, differentiated forwards, or computed with tensors of a subclass.

    Cheap after the first call. torch.compile traces through it: the decision is a constant to it.

    Args:
        kernel: Name of the kernel, such as "deformable-conv".
        name: Name of the function in the kernel's module.
        device: Type of device, such as "cpu".
        tensors: What the function is to be called with.

    Raises:
        InputError: `HF_MODELS_KERNELS` is "require" and there is no kernel, or is no mode.
    """
    if is_recording() or is_transformed() or not are_plain(*tensors):
        return None
    if not _has_kernel(kernel, device) or has_stale_counter():
        return None
    return getattr(_modules[kernel][device], name)


def get_module(kernel: str, device: str) -> ModuleType | None:
    """The module of a compiled kernel, for whoever knows that nothing but numbers is wanted: see `only_computes`."""
    return _modules[kernel][device] if _has_kernel(kernel, device) else None


def set_reference(kernel: str, reference: Callable) -> None:
    """Name the reference from which a kernel takes the derivatives that it does not compute."""
    _references[kernel] = reference


def build_command(device: str) -> str:
    """The command that builds the kernels for a type of device."""
    return "hf-models kernels build" + (f" --backend {device}" if device != "cpu" else "")


# Dynamo cannot take a function as a constant, but it reads these dictionaries; that of a kernel is filled before.
_modules: dict[str, dict[str, ModuleType]] = {kernel: {} for kernel in KERNELS}
_references: dict[str, Callable] = {}


@torch.compiler.assume_constant_result
def _has_kernel(kernel: str, device: str) -> bool:
    module, decision = _choose(kernel, device)
    if module is not None and _modules.setdefault(kernel, {}).get(device) is module:
        return True
    _log(decision)
    if module is not None:
        if kernel in _references and hasattr(module, "set_reference"):  # a kernel from the Hub may be older
            module.set_reference(_references[kernel])
        _modules[kernel][device] = module
    return module is not None


@functools.cache
def _choose(kernel: str, device: str) -> tuple[ModuleType | None, KernelStatus]:
    mode = os.environ.get("HF_MODELS_KERNELS", "auto")
    if mode not in MODES:
        raise InputError(f"HF_MODELS_KERNELS: expected one of {', '.join(MODES)}, got {mode}.")
    source, (module, places, reason) = KERNELS[kernel], (None, (), OFF)
    if mode != "off":
        module, places, reason = _find(kernel, source, device)
    if module is None and mode == "require" and device != "meta":
        raise InputError(
            f"{kernel}: HF_MODELS_KERNELS is require, but there is no kernel: {reason}. "
            f"Build it with `{build_command(device)}`, or unset HF_MODELS_KERNELS."
        )
    chosen, version, path, dtypes = "reference", None, None, ()
    if module is not None:
        chosen = "hub" if reason.endswith("on the Hub") else "local"
        version, path, dtypes = module.__name__, str(Path(module.__file__).parent), source.dtypes
    return module, KernelStatus(kernel, device, chosen, version, path, dtypes, reason, places)


def _find(kernel: str, source: _Source, device: str) -> tuple[ModuleType | None, tuple[Place, ...], str]:
    """The kernel's module, where it was looked for, and where it comes from or why there is none."""
    if device not in source.devices:
        return None, (), f"no build for {device} devices"
    if device == "meta":  # every build knows the shapes
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        import kernels
    except ImportError as error:
        return None, (), f"the kernels library does not import: {error}"
    module, places = find_kernel(kernels, kernel, source.repo_id, device, source.functions)
    used = [f"from {place.name}" for place in places if place.result == "used"]
    return module, places, "; ".join(used or [f"{place.name}: {place.result}" for place in places])


@functools.cache
def _log(decision: KernelStatus) -> None:
    """Say once what runs; where the reference does, also why, and how the kernel would."""
    if decision.device == "meta":  # nothing does
        return
    name = f"{decision.kernel} on {decision.device}"
    if decision.chosen != "reference":
        logger.info("%s: %s", name, decision.reason)
        return
    why, advice = decision.reason, ""
    if decision.places:
        looked_at = [place for place in decision.places if place.result not in (NOT_BUILT, NOT_NAMED)]
        why = "; ".join(f"{place.name}: {place.result}" for place in looked_at) or "no kernel is built"
        advice = f". `{build_command(decision.device)}` builds it for this Python environment."
    logger.log(logging.INFO if why == OFF else logging.WARNING, "%s: PyTorch reference (%s)%s", name, why, advice)


def _devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
