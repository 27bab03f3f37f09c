"""Repeating the checks of a conversion later."""

from pathlib import Path
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_models.errors import InputError, reason
from hf_models.inference.files import check_path, read_json
from hf_models.inference.loading import DTYPES

from .mapping.arguments import check_extent
from .plan import key_map_of
from .progress import progress_bar, sha256
from .reading.checkpoint import open_checkpoint
from .reading.source import find_source
from .registry import FAMILIES, HEADS, backbone_alone, convertible_of, recognise
from .report import REPORT, hash_source
from .writing.expected import cast_floating, model_tensors
from .writing.shards import Transfer, check_shards, check_values, compare_shards, read_shards


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
    known = [*FAMILIES, *(model_type for head in HEADS for model_type in head.model_types)]
    if (model_type := content.get("model_type")) not in known:
        raise InputError(f"{folder}: model_type {model_type!r} is not one of: {', '.join(known)}.")
    shards = read_shards(folder)
    try:
        check_extent(content)
        config = CONFIG_MAPPING[model_type].from_dict(content)
        dtype = DTYPES[report["dtype"]]
        part = report.get("part")
        recorded, (files, weights) = report["files"], (report["source"][key] for key in ("files", "weights"))
        hashes_of_source = [file["sha256"] for file in files]
        if not isinstance(recorded, dict):
            raise TypeError("files is no object")
    except Exception as error:  # transformers checks what it reads only in part
        raise InputError(
            f"{folder}: config.json or {REPORT} is damaged ({reason(error)}). Convert it again."
        ) from error
    convertible = convertible_of(config, part)
    if convertible is None:
        raise InputError(f"{folder}: its backbone {config.backbone_config.model_type!r} is not one of ours.")
    _check_layers(folder, convertible.layer_counts(config), sum(map(len, shards.values())))
    expected = cast_floating(model_tensors(convertible.model_class_of(config), config)[0], dtype)
    check_shards(folder, shards, expected)
    check_values(folder, shards, progress)
    with progress_bar("hash output", sum((folder / file).stat().st_size for file in shards), progress) as bar:
        found = {file: sha256(folder / file, bar) for file in shards}
    if found != recorded:
        changed = ", ".join(file for file in sorted(found | recorded) if found.get(file) != recorded.get(file))
        raise InputError(f"{folder}: {changed} changed since the conversion (sha256 differs from {REPORT}).")
    if source is not None:
        checkpoint = open_checkpoint(find_source(source), weights)
        hashes = [file["sha256"] for file in hash_source(checkpoint.source, allow_unknown=True, progress=progress)]
        if hashes != hashes_of_source:
            raise InputError(
                f"{source}: not the file that {folder} was converted from (sha256 differs from {REPORT})."
            )
        convertible, checkpoint = recognise(checkpoint, part)
        if part == "backbone":
            convertible, checkpoint = backbone_alone(convertible, checkpoint)
        key_map = key_map_of(convertible, checkpoint)
        transfer = Transfer(checkpoint, key_map, convertible.constants(config), expected)
        compare_shards(folder, shards, transfer, progress)
    return {
        "folder": str(folder),
        "tensors": len(expected),
        "files": len(shards),
        "source": None if source is None else str(source),
    }


def _check_layers(folder: Path, counts: dict[str, Any], tensors: int) -> None:
    """Refuse a config with more layers than there are tensors, before a model of so many is built."""
    for name, value in counts.items():
        if (sum(value) if isinstance(value, (list, tuple)) else value) > tensors:
            raise InputError(
                f"{folder}: config.json or {REPORT} is damaged ({name} is {value}, the files hold {tensors} tensors). "
                "Convert it again."
            )
