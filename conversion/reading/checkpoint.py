"""Reading checkpoints: lazily, and without ever running code that they carry."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import safe_open

from hf_models.errors import InputError, reason

from .containers import CHOICES, class_names, some, text, unwrap
from .file_format import FileFormat, file_format, load_pickle
from .names import without_wrappers
from .source import Source

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
        tensors: Name, without what wrappers add -> tensor on the meta device.
        dropped: What else the files hold -> why it is not read.
        origins: Name -> file and name inside the file.
        notes: What a reader should know.
        chosen: Which weights the user wants, if that is still to be found in the names of tensors.
        class_names: Those that are stored beside the weights, see [`class_names`].
    """

    source: Source
    weights: str
    tensors: dict[str, torch.Tensor]
    dropped: dict[str, str]
    origins: dict[str, tuple[Path, str]]
    notes: list[str]
    chosen: str | None = None
    class_names: list[str] = field(default_factory=list)

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

    def renamed(self, names: Mapping[str, str], dropped: Mapping[str, str], **changes) -> "Checkpoint":
        """The same with other names.

        Args:
            names: New name -> name.
            dropped: Name -> why it has no new one.
            changes: Other fields that change.

        Raises:
            InputError: A name is lost, as two of them become one.
        """
        if lost := self.tensors.keys() - names.values() - dropped.keys():
            raise InputError(f"{self.source.given}: holds {some(sorted(lost))} twice, in a wrapper and outside.")
        return replace(
            self,
            tensors={new: self.tensors[name] for new, name in names.items()},
            origins={new: self.origins[name] for new, name in names.items() if name in self.origins},
            dropped=self.dropped | dropped,
            **changes,
        )

    def batches(self, groups: Iterable[tuple[str, ...]]) -> Iterator[dict[str, torch.Tensor]]:
        """All the tensors of these groups of names, some groups at a time: `BATCH_BYTES` or one group."""
        batch, size = [], 0
        for names in groups:
            nbytes = sum(self.tensors[name].nbytes for name in names)
            if batch and size + nbytes > BATCH_BYTES:
                yield self.read(batch)
                batch, size = [], 0
            batch += names
            size += nbytes
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
    if weights not in (None, *CHOICES):
        raise InputError(f"--weights must be one of: {', '.join(CHOICES)}; got {weights}.")
    kinds, tensors, dropped, origins, copied = set(), {}, {}, {}, []
    for path in source.files:
        content, others, kind, names = _read_file(path, weights)
        kinds.add(kind)
        if len(content) > MAX_TENSORS:
            raise InputError(
                f"{path}: holds {len(content):,} tensors, more than any model here. Save the state dict alone."
            )
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
    notes = [f"tensors with a strided or shared storage were copied: {some(copied)}"] if copied else []
    if len(kinds) > 1:
        raise InputError(f"{source.given}: its files hold different sets of weights. Convert one file.")
    (kind,) = kinds
    undecided = weights if kind is None else None
    checkpoint = Checkpoint(source, kind or "model", tensors, dropped, origins, notes, undecided, names)
    return checkpoint.renamed({without_wrappers(name): name for name in tensors}, {})


def _needs_copy(tensor: torch.Tensor, storages: set[int]) -> bool:
    """Whether a tensor is not simply all of a storage that no other has; notes its storage."""
    storage = tensor.untyped_storage()
    shared = storage.data_ptr() in storages
    storages.add(storage.data_ptr())
    return shared or not tensor.is_contiguous() or storage.nbytes() != tensor.nbytes


def _meta(path: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The shape and the type of a tensor that can be converted."""
    if not isinstance(name, str) or len(name) > MAX_NAME or not name.isprintable() or re.search(r"\d{4}", name):
        raise InputError(f"{path}: no model here has a tensor {text(name)}. Save the state dict alone.")
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


def _read_file(
    path: Path, weights: str | None
) -> tuple[dict[str, torch.Tensor], dict[str, str], str | None, list[str]]:
    """The (mapped) tensors of a file, what is dropped and why, which weights were read, and names of classes."""
    kind = file_format(path)
    if kind is not FileFormat.SAFETENSORS:
        content = load_pickle(path, kind)
        return *unwrap(path, content, weights), class_names(content)
    try:
        with safe_open(path, framework="pt") as file:
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return *unwrap(path, content, weights), []
    except InputError:
        raise
    except Exception as error:  # the library's own error, or PyTorch's where it does not know a type
        raise InputError(f"{path}: damaged ({reason(error)}). Delete it and download again.") from error
