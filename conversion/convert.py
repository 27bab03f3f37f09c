"""From an original checkpoint to a model repository for transformers."""

from pathlib import Path

import torch
from transformers import BaseImageProcessor
from transformers.utils import logging

from hf_models.errors import InputError, reason
from hf_models.inference.loading import DTYPES
from hf_models.model_cards import render_card

from .plan import Plan, make_plan
from .progress import progress_bar, sha256
from .reading.checkpoint import Checkpoint, open_checkpoint
from .reading.containers import some
from .reading.source import find_source
from .report import REPORT, hash_source, make_report, provenance, write_json
from .writing.expected import cast_floating
from .writing.output import appearing, check_output, tidy
from .writing.shards import Transfer, check_shards, compare_shards, read_shards, split, write_shards

RELOAD_BYTES = 1.5e9  # models up to this size are also loaded as a user would


def convert(
    source: str | Path,
    output: str | Path,
    *,
    name: str | None = None,
    original_config: str | Path | None = None,
    part: str | None = None,
    weights: str | None = None,
    dtype: str | None = None,
    max_shard_size: str = "5GB",
    overwrite: bool = False,
    dry_run: bool = False,
    allow_unknown: bool = False,
    progress: bool = True,
) -> dict:
    """Convert a checkpoint of the original code into a folder that `from_pretrained` loads.

    Nothing is trusted: files are read without running code from them, every tensor is accounted for, and what was
    written is read back and compared before `output` appears. Memory stays near `max_shard_size`.

    Args:
        source: A checkpoint file; a folder or Hub id in upstream's Hugging Face format; or `hf://ORG/REPO/FILE`.
        output: Folder to create.
        name: Published checkpoint to take the config from. By default `source` itself, if it is named as one.
        original_config: JSON file with the arguments of the original constructor, or with a config of mmseg or mmdet 2
            or its `model` dict, for other checkpoints.
        part: `"backbone"` to convert only that of a checkpoint with a head on it, `"img_backbone"` for that of a
            driving network.
        weights: `"model"` or `"ema"`, where a training checkpoint holds both.
        dtype: What the files store: `"float32"`, `"float16"` or `"bfloat16"`; by default that of the checkpoint.
            Models load in float32.
        max_shard_size: Largest weight file, such as `"5GB"`.
        overwrite: Replace `output` if it is a model repository.
        dry_run: Do everything but write.
        allow_unknown: Convert a file although its sha256 is not the published one.
        progress: Show progress bars, on a terminal.

    Returns:
        The conversion report, which is also written to `output`.

    Raises:
        InputError: The conversion cannot be done; nothing was written.
    """
    if name and original_config:
        raise InputError("--name and --original-config exclude each other. Pass one of them.")
    if part not in (None, "backbone", "img_backbone"):
        raise InputError(f"--part must be backbone or img_backbone, got {part}.")
    output = Path(output)
    if not dry_run:
        tidy(output)
    check_output(output, source, overwrite)
    found = find_source(source)
    hashes = hash_source(found, allow_unknown, progress)  # what is damaged is not even looked into
    plan = make_plan(open_checkpoint(found, weights), name, original_config, part)
    target = _choose_dtype(plan.checkpoint, dtype)
    transfer = Transfer(plan.checkpoint, plan.key_map, plan.constants, cast_floating(plan.expected, target))
    shards = split(transfer.expected, max_shard_size)
    report = make_report(plan, target, hashes)
    if dry_run:
        for _ in transfer.checked_batches(transfer.expected):
            pass
        return report
    with appearing(output, transfer.nbytes, overwrite) as folder:
        write_shards(folder, shards, transfer, progress)
        plan.config.architectures = [plan.model_class.__name__]
        plan.config.dtype = torch.float32  # transformers computes and trains in it, whatever the files store
        plan.config.save_pretrained(folder)
        _image_processor(plan).save_pretrained(folder)
        card = render_card(plan.published, plan.config, conversion=provenance(report))
        (folder / "README.md").write_text(card, encoding="utf-8")
        written = read_shards(folder)
        check_shards(folder, written, transfer.expected)
        compare_shards(folder, written, transfer, progress)
        if transfer.nbytes < RELOAD_BYTES:
            _reload(folder, plan)
        with progress_bar("hash output", sum((folder / file).stat().st_size for file in written), progress) as bar:
            report["files"] = {file: sha256(folder / file, bar) for file in written}
        write_json(folder / REPORT, report)
    return report


def _choose_dtype(checkpoint: Checkpoint, requested: str | None) -> torch.dtype:
    """What the user asks for, or the type that all weights have, or float32."""
    if requested is not None:
        if requested not in DTYPES:
            raise InputError(f"--dtype must be one of: float32, float16, bfloat16; got {requested}.")
        return DTYPES[requested]
    found = {tensor.dtype for tensor in checkpoint.tensors.values() if tensor.is_floating_point()}
    return found.pop() if len(found) == 1 and found <= set(DTYPES.values()) else torch.float32


def _image_processor(plan: Plan) -> BaseImageProcessor:
    """That of the published recipe; for a checkpoint that nobody published upstream's, or the usual one."""
    whole = plan.published and plan.published.image_processor()
    if plan.as_published:
        return whole
    stated = whole.to_dict() if whole else plan.preprocessing or {}
    if plan.part:  # how large images are depends on what the backbone will be used for
        stated = {name: stated[name] for name in ("image_mean", "image_std") if name in stated}
    return plan.convertible.image_processor(plan.config, stated)


def _reload(folder: Path, plan: Plan) -> None:
    """Load the folder as a user would."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        _, info = plan.model_class.from_pretrained(folder, output_loading_info=True)
    except Exception as error:  # whatever it is, a user would meet it too
        raise InputError(f"{folder.name}: does not load ({reason(error)}). Nothing was written.") from error
    finally:
        if shown:
            logging.enable_progress_bar()
    if problems := {kind: some(sorted(map(str, names))) for kind, names in info.items() if names}:
        raise InputError(f"{folder.name}: does not load completely: {problems}. Nothing was written.")
