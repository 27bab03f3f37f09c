"""Who takes part in `hf-models benchmark models`: a model, run in some way, in some precision."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from hf_models.errors import InputError

from .model_entries import MODELS
from .model_files import ModelFiles
from .modes import MODES

NEEDED = {"onnxruntime": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino", "onnx", "onnxscript")}


@dataclass(frozen=True)
class Contestant:
    """A model, run in some way.

    Args:
        model: Key of `MODELS`.
        mode: Key of `MODES`.
        dtype: Key of `DTYPES`; with products in 8 bits, that of the rest.
    """

    model: str
    mode: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.model}, {self.mode}, {self.dtype}"

    @property
    def columns(self) -> dict[str, str]:
        """What its rows say of it."""
        return {"model": self.model, "mode": self.mode, "dtype": self.dtype, "runtime": self.runtime}

    @property
    def runtime(self) -> str:
        """What runs it, with versions."""
        package = MODES[self.mode].runtime
        packages = [package]
        if package == "torch" and MODELS[self.model].needs_timm:
            packages.append("timm")
        return ", ".join(f"{name} {_version(name)}" for name in packages)

    @property
    def tolerance(self) -> float:
        """By how much its logits may differ from the original's, relative to their norm."""
        if MODES[self.mode].int8:
            return 0.3  # random weights
        return 1e-4 if self.dtype == "float32" else 5e-2

    def case(self, files: ModelFiles, image_size: int, batch_size: int, threads: int) -> dict:
        """What [`worker.Contestant.prepare`] takes."""
        mode, case = MODES[self.mode], {"shape": [batch_size, 3, image_size, image_size], "threads": threads}
        if mode.runtime != "torch":
            case["file"] = str(files.onnx(self.model, image_size, mode.int8))
        return case

    def specification(self, files: ModelFiles, device: str) -> dict:
        """What [`worker.Contestant`] takes."""
        runtime = MODES[self.mode].runtime
        if runtime == "onnxruntime":
            return {"runtime": runtime}
        if runtime == "openvino":
            return {"runtime": runtime, "dtype": self.dtype}
        return {
            "runtime": runtime,
            "file": str((files.int8 if self.mode == "int8" else files.model)(self.model, self.dtype)),
            "mode": self.mode,
            "dtype": self.dtype,
            "device": device,
            "auto_class": "AutoModelForImageClassification",
            "channels_last": MODELS[self.model].channels_last,
        }


def contestants(wanted: Sequence[tuple[str, str]], dtypes: Sequence[str], device: str) -> list[Contestant]:
    """All that there are of these models in these modes; says on stderr what is not installed.

    Raises:
        InputError: There are none, or a model cannot be built.
    """
    missing = {
        mode: [name for name in NEEDED.get(MODES[mode].runtime, ()) if find_spec(name) is None] for _, mode in wanted
    }
    for mode, packages in missing.items():
        if packages:
            why = f"not installed: {', '.join(packages)}. Run `pip install 'hf-models[benchmark]'`."
            print(f"{mode} is left out: {why}", file=sys.stderr)
    for name in dict.fromkeys(name for name, _ in wanted):
        MODELS[name].check(name)
    found = [
        Contestant(name, mode, dtype)
        for name, mode in wanted
        if mode in MODELS[name].modes and not missing[mode] and (device == "cpu" or MODES[mode].runtime == "torch")
        for dtype in dtypes
        if dtype in MODES[mode].dtypes
    ]
    if not found:
        names, modes = (", ".join(dict.fromkeys(part)) for part in zip(*wanted, strict=True))
        raise InputError(
            f"{names}: none runs on {device} as {modes} in {', '.join(dtypes)}. Choose another --mode or --dtype."
        )
    return found


def buildable() -> list[str]:
    """All models that can be built here; says on stderr which cannot."""
    found = []
    for name, entry in MODELS.items():
        if not entry.is_default:
            continue
        try:
            entry.check(name)
        except InputError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
        else:
            found.append(name)
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
