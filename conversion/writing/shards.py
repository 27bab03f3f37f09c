"""Writing tensors in shards of bounded size, and comparing what was written with where it came from."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import safe_open
from safetensors.torch import save_file

from hf_models.errors import InputError, reason
from hf_models.inference.weight_files import weight_files

from ..mapping.key_map import KeyMap
from ..progress import progress_bar
from ..reading.checkpoint import Checkpoint
from ..reading.file_format import FileFormat, file_format

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


def split(expected: dict[str, torch.Tensor], max_shard_size: str) -> dict[str, list[str]]:
    """File name -> names of its tensors, as `save_pretrained` would split them."""
    try:
        plan = split_torch_state_dict_into_shards(expected, max_shard_size=max_shard_size)
    except (ValueError, OverflowError) as error:
        raise InputError(f"--max-shard-size {max_shard_size}: {reason(error)}") from error
    return plan.filename_to_tensors


def check_finite(name: str, tensor: torch.Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        InputError: There are such values.
    """
    # a finite sum has finite terms: one quick pass that needs no memory, for all tensors but the bad ones
    if not tensor.is_floating_point() or tensor.sum(dtype=torch.float32).isfinite():
        return
    nan, infinite = tensor.isnan().sum().item(), tensor.isinf().sum().item()
    if nan or infinite:
        kind = "NaN" if nan else f"infinite in {tensor.dtype}".replace("torch.", "")
        raise InputError(f"{name}: {nan or infinite} of {tensor.numel()} values are {kind}. Refused.")


@dataclass
class Transfer:
    """What goes where.

    Args:
        checkpoint: Where values come from.
        key_map: Which of them.
        constants: Our name -> tensor that the checkpoint does not hold.
        expected: Our name -> tensor on the meta device, with the shape and the type to write.
    """

    checkpoint: Checkpoint
    key_map: KeyMap
    constants: dict[str, torch.Tensor]
    expected: dict[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.expected.values())

    def batches(self, names: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
        """Our name -> tensor to write, for every name, some at a time."""
        ours = {}  # what comes from the same tensors is read with them
        for name in names:
            if name in self.constants:
                yield {name: self.constants[name].to(self.expected[name].dtype)}
            else:
                ours.setdefault(self.key_map.origins[name].names, []).append(name)
        for tensors in self.checkpoint.batches(ours):
            yield {
                name: self.key_map.origins[name].tensor(tensors).to(self.expected[name].dtype)
                for sources, named in ours.items()
                if sources[0] in tensors
                for name in named
            }

    def checked_batches(self, names: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
        """The same, refusing values that are not finite."""
        for batch in self.batches(names):
            for name, tensor in batch.items():
                source = self.key_map.origins.get(name, name)
                check_finite(f"{self.checkpoint.source.given}: {source}", tensor)
            yield batch


def write_shards(folder: Path, shards: dict[str, list[str]], transfer: Transfer, progress: bool) -> None:
    """Write every tensor, and the index if there are several shards. At most one shard is resident."""
    with progress_bar("write", transfer.nbytes, progress) as bar:
        for file, names in shards.items():
            tensors = {}
            for batch in transfer.checked_batches(names):
                tensors |= batch
                bar.update(sum(tensor.nbytes for tensor in batch.values()))
            save_file(tensors, folder / file, metadata={"format": "pt"})
            # safetensors makes its files private
            (folder / file).chmod(0o666 & ~_umask())
    if len(shards) > 1:
        weight_map = {name: file for file, names in shards.items() for name in names}
        index = {"metadata": {"total_size": transfer.nbytes}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def read_shards(folder: Path) -> dict[str, list[str]]:
    """File name -> names of the tensors in it, for a folder that `write_shards` wrote.

    Raises:
        InputError: A file is missing or damaged, lies outside the folder, or is not what the index says.
    """
    stored = weight_files(folder, (WEIGHTS,))
    if stored is None:
        raise InputError(f"{folder}: holds neither {WEIGHTS} nor {INDEX}. Convert it again.")
    paths, weight_map = stored
    shards = {}
    for file in sorted(path.relative_to(folder).as_posix() for path in paths):
        if file_format(folder / file) is not FileFormat.SAFETENSORS:
            raise InputError(f"{folder / file}: not a safetensors file. Convert it again.")
        with open_shard(folder / file) as shard:
            shards[file] = list(shard.keys())
    found = {name: folder / file for file, names in shards.items() for name in names}
    if len(found) != sum(map(len, shards.values())) or weight_map not in (None, found):
        raise InputError(f"{folder / INDEX}: index and shards do not name the same tensors. Convert it again.")
    return shards


@contextmanager
def open_shard(path: Path) -> Iterator[safe_open]:
    """A shard, mapped while it is open."""
    try:
        with safe_open(path, framework="pt") as shard:
            yield shard
    except InputError:
        raise
    except Exception as error:  # the library's own error, or PyTorch's where it does not know a type
        raise InputError(f"{path}: damaged ({reason(error)}). Convert it again.") from error


def stored_dtype(folder: Path, shards: dict[str, list[str]]) -> torch.dtype:
    """The floating-point type of the tensors in files; float32 for a mixture, which `check_shards` refuses."""
    found = set()
    for file, names in shards.items():
        with open_shard(folder / file) as shard:
            found |= {shard.get_tensor(name).dtype for name in names}
    floating = {dtype for dtype in found if dtype.is_floating_point}
    return floating.pop() if len(floating) == 1 else torch.float32


def check_shards(folder: Path, shards: dict[str, list[str]], expected: dict[str, torch.Tensor]) -> None:
    """Check that the files hold exactly the model's tensors: names, shapes, types.

    Raises:
        InputError: They do not.
    """
    found = {name for names in shards.values() for name in names}
    if found != expected.keys():
        names = ", ".join(sorted(found ^ expected.keys())[:4])
        raise InputError(f"{folder}: tensors missing or superfluous for its config: {names}. Convert it again.")
    for file, names in shards.items():
        with open_shard(folder / file) as shard:
            for name in names:
                tensor, wanted = shard.get_tensor(name), expected[name]
                if (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
                    raise InputError(
                        f"{folder / file}: {name} is {tuple(tensor.shape)} {tensor.dtype}, "
                        f"expected {tuple(wanted.shape)} {wanted.dtype}. Convert it again."
                    )


def check_values(folder: Path, shards: dict[str, list[str]], progress: bool) -> None:
    """Check that all values are finite.

    Raises:
        InputError: Some are not.
    """
    with progress_bar("check", sum((folder / file).stat().st_size for file in shards), progress) as bar:
        for file, names in shards.items():
            for name in names:
                # opened anew for each tensor, so that pages leave memory
                with open_shard(folder / file) as shard:
                    tensor = shard.get_tensor(name)
                check_finite(f"{folder / file}: {name}", tensor)
                bar.update(tensor.nbytes)


def compare_shards(folder: Path, shards: dict[str, list[str]], transfer: Transfer, progress: bool) -> None:
    """Read back every tensor and hold it against the source, bit by bit.

    Raises:
        InputError: They differ.
    """
    with progress_bar("compare", transfer.nbytes, progress) as bar:
        for file, names in shards.items():
            for batch in transfer.batches(names):
                # opened anew for each batch, so that pages leave memory
                with open_shard(folder / file) as shard:
                    for name, tensor in batch.items():
                        if not torch.equal(shard.get_tensor(name), tensor):
                            raise InputError(f"{folder / file}: {name} differs from the source. Convert it again.")
                bar.update(sum(tensor.nbytes for tensor in batch.values()))
