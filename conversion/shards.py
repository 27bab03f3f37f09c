"""Writing tensors in shards of bounded size, and comparing what was written with where it came from."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from hf_models.errors import InputError

from .checkpoint import Checkpoint
from .file_format import FileFormat, file_format
from .source import read_index

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


@contextmanager
def progress_bar(what: str, size: int, shown: bool) -> Iterator[tqdm]:
    """A bar that counts bytes; only on a terminal."""
    with tqdm(desc=what, total=size, unit="B", unit_scale=True, disable=None if shown else True) as bar:
        yield bar


def sha256(path: Path, bar: tqdm) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def split(expected: dict[str, torch.Tensor], max_shard_size: str) -> dict[str, list[str]]:
    """File name -> names of its tensors, as `save_pretrained` would split them."""
    try:
        plan = split_torch_state_dict_into_shards(expected, max_shard_size=max_shard_size)
    except ValueError as error:
        raise InputError(f"--max-shard-size {max_shard_size}: {error}") from error
    return plan.filename_to_tensors


def cast(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in the type it is written in.

    Raises:
        InputError: Values are not finite, before or after.
    """
    cast = tensor.to(dtype)
    if cast.is_floating_point() and not (finite := cast.isfinite()).all():
        bad = finite.logical_not().sum().item()
        was_finite = tensor.isfinite().all().item()
        kind = f"too large for {dtype}" if was_finite else "NaN" if tensor.isnan().any() else "infinite"
        way_out = " Pass --dtype float32 or bfloat16." if was_finite else ""
        raise InputError(f"{name}: {bad} of {tensor.numel()} values are {kind}. Refused.{way_out}")
    return cast


def source_batches(
    checkpoint: Checkpoint, names: Iterable[str], source_of: dict[str, str], expected: dict[str, torch.Tensor]
) -> Iterator[dict[str, torch.Tensor]]:
    """Our name -> tensor to write, for every name, some at a time."""
    ours = {source_of[name]: name for name in names}
    for batch in checkpoint.batches(ours):
        yield {ours[source]: cast(source, tensor, expected[ours[source]].dtype) for source, tensor in batch.items()}


def write_shards(
    folder: Path,
    shards: dict[str, list[str]],
    checkpoint: Checkpoint,
    source_of: dict[str, str],
    expected: dict[str, torch.Tensor],
    shown: bool,
) -> None:
    """Write every tensor, and the index if there are several shards. At most one shard is resident."""
    size = sum(tensor.nbytes for tensor in expected.values())
    with progress_bar("write", size, shown) as bar:
        for file, names in shards.items():
            tensors = {}
            for batch in source_batches(checkpoint, names, source_of, expected):
                tensors |= batch
            save_file(tensors, folder / file, metadata={"format": "pt"})
            bar.update(sum(tensor.nbytes for tensor in tensors.values()))
    if len(shards) > 1:
        weight_map = {name: file for file, names in shards.items() for name in names}
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def read_shards(folder: Path) -> dict[str, list[str]]:
    """File name -> names of the tensors in it, for a folder that `write_shards` wrote.

    Raises:
        InputError: A file is missing or damaged, lies outside the folder, or is not what the index says.
    """
    files = {WEIGHTS}
    weight_map = None
    if (folder / INDEX).is_file():
        weight_map = read_index(folder, INDEX)
        files = {path.relative_to(folder).as_posix() for path in weight_map.values()}
    elif not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: holds neither {WEIGHTS} nor {INDEX}. Convert it again.")
    shards = {}
    for file in sorted(files):
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
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error}). Convert it again.") from error


def compare_shards(
    folder: Path,
    shards: dict[str, list[str]],
    checkpoint: Checkpoint,
    source_of: dict[str, str],
    expected: dict[str, torch.Tensor],
    shown: bool,
) -> None:
    """Read back every tensor and hold it against the source, bit by bit.

    Raises:
        InputError: They differ.
    """
    with progress_bar("compare", sum(tensor.nbytes for tensor in expected.values()), shown) as bar:
        for file, names in shards.items():
            for batch in source_batches(checkpoint, names, source_of, expected):
                # opened anew for each batch, so that pages leave memory
                with open_shard(folder / file) as shard:
                    for name, tensor in batch.items():
                        if not torch.equal(shard.get_tensor(name), tensor):
                            raise InputError(f"{folder / file}: {name} differs from the source. Convert it again.")
                bar.update(sum(tensor.nbytes for tensor in batch.values()))


def check_shards(folder: Path, shards: dict[str, list[str]], expected: dict[str, torch.Tensor], shown: bool) -> None:
    """Check that the files hold exactly the model's tensors: names, shapes, types, finite values.

    Raises:
        InputError: They do not.
    """
    found = {name for names in shards.values() for name in names}
    if found != expected.keys():
        names = ", ".join(sorted(found ^ expected.keys())[:4])
        raise InputError(f"{folder}: tensors missing or superfluous for its config: {names}. Convert it again.")
    with progress_bar("check", sum(tensor.nbytes for tensor in expected.values()), shown) as bar:
        for file, names in shards.items():
            for name in names:
                with open_shard(folder / file) as shard:
                    tensor = shard.get_tensor(name)
                wanted = expected[name]
                if (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
                    raise InputError(
                        f"{folder / file}: {name} is {tuple(tensor.shape)} {tensor.dtype}, "
                        f"expected {tuple(wanted.shape)} {wanted.dtype}. Convert it again."
                    )
                cast(name, tensor, wanted.dtype)
                bar.update(tensor.nbytes)
