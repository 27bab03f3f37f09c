"""Repeating the checks of a conversion later."""

from pathlib import Path

from hf_models.errors import InputError, reason
from hf_models.inference.files import check_path, read_json

from .backbones.family import check_extent
from .convert import DTYPES
from .progress import progress_bar, sha256
from .reading.checkpoint import open_checkpoint
from .reading.source import find_source
from .registry import FAMILIES, HEADS, checkpoint_key_map, family_of, find_family, model_tensors
from .report import REPORT, hash_source
from .writing.shards import (
    Transfer,
    cast_floating,
    check_shards,
    check_values,
    compare_shards,
    read_shards,
)

# fields that count layers, each of which has tensors
LAYERS = ("depths", "num_modulation_heads", "encoder_layers", "decoder_layers")


def verify(folder: str | Path, *, source: str | Path | None = None, progress: bool = True) -> dict:
    """Check a converted folder: against itself, its report and, if given, its source.

    Args:
        folder: What `convert` wrote.
        source: What it was converted from, to compare sha256 and every value.
        progress: Show progress bars, on a terminal.

    Returns:
        `{"folder": str, "tensors": int, "files": int, "source": str | None}`: what was checked.

    Raises:
        InputError: Something is missing, damaged, outside the folder, or not what report or source say.
    """
    folder = Path(folder)
    check_path(folder)
    report = read_json(folder / REPORT)
    content = read_json(folder / "config.json")
    classes = [family.model_class.config_class for family in (*FAMILIES.values(), *HEADS)]
    known = {config_class.model_type: config_class for config_class in classes}
    if str(content.get("model_type")) not in known:
        raise InputError(f"{folder}: model_type {content.get('model_type')!r} is not one of: {', '.join(known)}.")
    shards = read_shards(folder)
    try:
        _check_layers(content, sum(map(len, shards.values())))
        check_extent(content)
        config = known[content["model_type"]].from_dict(content)
        dtype = DTYPES[report["dtype"]]
        recorded, (files, weights) = report["files"], (report["source"][key] for key in ("files", "weights"))
        hashes_of_source = [file["sha256"] for file in files]
        if not isinstance(recorded, dict):
            raise TypeError("files is no object")
    except Exception as error:  # transformers checks what it reads only in part
        raise InputError(
            f"{folder}: config.json or {REPORT} is damaged ({reason(error)}). Convert it again."
        ) from error
    family = family_of(config)
    if family is None:
        raise InputError(f"{folder}: its backbone {config.backbone_config.model_type!r} is not one of ours.")
    expected = cast_floating(model_tensors(family, config)[0], dtype)
    check_shards(folder, shards, expected)
    check_values(folder, shards, progress)
    with progress_bar("hash output", sum((folder / file).stat().st_size for file in shards), progress) as bar:
        found = {file: sha256(folder / file, bar) for file in shards}
    if found != recorded:
        changed = ", ".join(file for file in sorted(found | recorded) if found.get(file) != recorded.get(file))
        raise InputError(f"{folder}: {changed} changed since the conversion (sha256 differs from {REPORT}).")
    if source is not None:
        checkpoint = open_checkpoint(find_source(source), weights)
        hashes = [file["sha256"] for file in hash_source(checkpoint.source, allow_unknown=True, shown=progress)]
        if hashes != hashes_of_source:
            raise InputError(
                f"{source}: not the file that {folder} was converted from (sha256 differs from {REPORT})."
            )
        key_map = checkpoint_key_map(find_family(checkpoint), checkpoint)
        compare_shards(folder, shards, Transfer(checkpoint, key_map, family.constants(config), expected), progress)
    return {
        "folder": str(folder),
        "tensors": len(expected),
        "files": len(shards),
        "source": None if source is None else str(source),
    }


def _check_layers(content: dict, tensors: int) -> None:
    """Refuse a config with more layers than there are tensors, before a model of so many is built."""
    for name, value in content.items():
        values = value if isinstance(value, list) else [value]
        if name in LAYERS and sum(number for number in values if isinstance(number, int)) > tensors:
            raise InputError(f"{name} is {value}, the files hold {tensors} tensors")
        if isinstance(value, dict):
            _check_layers(value, tensors)
