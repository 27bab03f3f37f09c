"""Reading checkpoints: lazily, and without ever running code that they carry."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from hf_models.errors import InputError, printable, reason

from .file_format import FileFormat, file_format, load_pickle
from .source import Source

# under which keys training scripts nest a state dict, by the choice that --weights names
CONTAINERS = {"model": ("model", "state_dict", "module"), "ema": ("model_ema",)}
# prefixes of wrappers: distributed training's, upstream's port to the Hub
WRAPPERS = ("module.", "model.")
BATCH_BYTES = 512 * 2**20
# beyond any model here; a name that counts to a billion would have us look at a billion layers
MAX_TENSORS = 20_000
MAX_NAME = 500
DTYPES = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}


@dataclass
class Checkpoint:
    """Names and shapes of a checkpoint's tensors, and the way to their values.

    Args:
        source: Where it lies.
        weights: Which of its state dicts is read: `"model"` or `"ema"`.
        tensors: Name, without the prefix of a wrapper -> tensor on the meta device.
        dropped: What else the files hold -> why it is not read.
        origins: Name -> file and name inside the file.
        notes: What a reader should know.
    """

    source: Source
    weights: str
    tensors: dict[str, torch.Tensor]
    dropped: dict[str, str]
    origins: dict[str, tuple[Path, str]]
    notes: list[str]

    def read(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """The tensors themselves, contiguous and of a storage each.

        They are mapped from disk: pages become resident when used and leave memory with the last tensor. Files in
        PyTorch's format from before 1.6 cannot be mapped and are loaded whole.
        """
        names = list(names)
        contents = {path: _read_file(path, self.weights)[0] for path in {self.origins[name][0] for name in names}}
        found, storages = {}, set()
        for name in names:
            path, raw = self.origins[name]
            tensor = contents[path][raw].detach()
            if _needs_copy(tensor, storages):
                tensor = tensor.clone(memory_format=torch.contiguous_format)
            found[name] = tensor
        return found

    def batches(self, names: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
        """All the tensors of these names, some at a time, so that at most about `BATCH_BYTES` are resident."""
        batch, size = [], 0
        for name in names:
            if batch and size + self.tensors[name].nbytes > BATCH_BYTES:
                yield self.read(batch)
                batch, size = [], 0
            batch.append(name)
            size += self.tensors[name].nbytes
        if batch:
            yield self.read(batch)


def open_checkpoint(source: Source, weights: str | None = None) -> Checkpoint:
    """Read the names and shapes of a checkpoint.

    Args:
        source: Where it lies.
        weights: `"model"` or `"ema"`, where a training checkpoint holds both.

    Raises:
        InputError: A file is damaged, is not a checkpoint, would run code, or leaves a choice open.
    """
    if weights not in (None, *CONTAINERS):
        raise InputError(f"--weights must be one of: {', '.join(CONTAINERS)}; got {weights}.")
    tensors, dropped, origins, copied = {}, {}, {}, []
    for path in source.files:
        content, others, weights = _read_file(path, weights)
        storages = set()
        dropped |= others
        for name, tensor in content.items():
            if name in tensors:
                raise InputError(f"{path}: {name} is in {origins[name][0].name} too. Fetch the whole folder again.")
            tensors[name], origins[name] = _meta(path, name, tensor), (path, name)
            if _needs_copy(tensor, storages):
                copied.append(name)
    if source.shard_of is not None and source.shard_of != {name: path for name, (path, _) in origins.items()}:
        raise InputError(f"{source.given}: the index and the shards do not name the same tensors. Fetch it again.")
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
            origins = {name.removeprefix(wrapper): origin for name, origin in origins.items()}
    notes = [f"tensors with a strided or shared storage were copied: {some(copied)}"] if copied else []
    return Checkpoint(source, weights, tensors, dropped, origins, notes)


def some(names: Iterable) -> str:
    """The first names, on one line."""
    names = [_text(name) for name in names]
    return ", ".join(names[:6]) + (f", ... ({len(names)} in all)" if len(names) > 6 else "") if names else "none"


def _text(name: Any) -> str:
    """A key of a checkpoint, of whatever type, as text."""
    try:
        return printable(name)
    except ValueError:  # an integer with more digits than Python prints
        return f"a {type(name).__name__}"


def _needs_copy(tensor: torch.Tensor, storages: set[int]) -> bool:
    """Whether a tensor is not simply all of a storage that no other has; notes its storage."""
    storage = tensor.untyped_storage()
    shared = storage.data_ptr() in storages
    storages.add(storage.data_ptr())
    return shared or not tensor.is_contiguous() or storage.nbytes() != tensor.nbytes


def _meta(path: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The shape and the type of a tensor that can be converted."""
    if not isinstance(name, str) or len(name) > MAX_NAME or not name.isprintable() or re.search(r"\d{4}", name):
        raise InputError(f"{path}: no model here has a tensor {_text(name)}. Save the state dict alone.")
    if tensor.device.type != "cpu":
        raise InputError(
            f"{path}: {name} has no values, it is on the {tensor.device.type} device. Save it from the CPU."
        )
    if tensor.layout is not torch.strided or tensor.dtype not in DTYPES:
        kind = "quantized" if tensor.is_quantized else f"{tensor.layout} {tensor.dtype}".replace("torch.", "")
        raise InputError(f"{path}: {name} is a {kind} tensor. Only dense real tensors are converted.")
    shape, stored = tuple(tensor.shape), tensor.untyped_storage().nbytes()
    if not 0 < tensor.nbytes <= stored:
        raise InputError(f"{path}: {name} is {shape} with {stored:,} bytes of values. Save it as a contiguous tensor.")
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _read_file(path: Path, weights: str | None) -> tuple[dict[str, torch.Tensor], dict[str, str], str]:
    """The (mapped) tensors of a file, what is dropped and why, and which weights were read."""
    kind = file_format(path)
    if kind is not FileFormat.SAFETENSORS:
        return _unwrap(path, load_pickle(path, kind), weights)
    try:
        with safe_open(path, framework="pt") as file:
            return _unwrap(path, {name: file.get_tensor(name) for name in file.keys()}, weights)  # noqa: SIM118
    except InputError:
        raise
    except Exception as error:  # the library's own error, or PyTorch's where it does not know a type
        raise InputError(f"{path}: damaged ({reason(error)}). Delete it and download again.") from error


def _unwrap(path: Path, content: Any, weights: str | None) -> tuple[dict[str, torch.Tensor], dict[str, str], str]:
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dictionary of tensors. Save a state dict.")
    dropped = {}
    if any(isinstance(value, torch.Tensor) for value in content.values()):
        if weights == "ema":
            raise InputError(f"{path}: holds no model_ema, only one set of weights. Leave out --weights.")
        weights = "model"
    else:
        weights, container = _container(path, content, weights)
        for key, value in content.items():
            if key != container:
                chosen = any(key in keys for keys in CONTAINERS.values())
                dropped[key] = (
                    f"not chosen: --weights {weights}" if chosen else f"not weights ({type(value).__name__})"
                )
        content = content[container] if isinstance(content[container], dict) else {}
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if len(tensors) > MAX_TENSORS:
        raise InputError(
            f"{path}: holds {len(tensors):,} tensors, more than any model here. Save the state dict alone."
        )
    if not tensors:
        raise InputError(f"{path}: holds no tensors. Its keys are: {some(content)}.")
    dropped |= {k: f"not a tensor ({type(v).__name__})" for k, v in content.items() if k not in tensors}
    return tensors, {_text(key): why for key, why in dropped.items()}, weights


def _container(path: Path, content: dict, weights: str | None) -> tuple[str, str]:
    """Which weights to read from a training checkpoint, and the key that they are under."""
    present = {choice: [key for key in keys if key in content] for choice, keys in CONTAINERS.items()}
    if weights is None:
        found = [choice for choice, keys in present.items() if keys]
        if len(found) > 1:
            keys = " and ".join(key for keys in present.values() for key in keys)
            raise InputError(f"{path}: holds {keys}. Choose --weights model or ema (the running average).")
        weights = found[0] if found else "model"
    if len(present[weights]) != 1:
        what = " and ".join(present[weights]) or f"none of {', '.join(CONTAINERS[weights])}"
        raise InputError(f"{path}: holds {what}, where one is wanted. Its keys are: {some(content)}.")
    return weights, present[weights][0]
