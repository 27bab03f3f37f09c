"""From an original checkpoint to a model repository for transformers."""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import BaseImageProcessor, BitImageProcessorPil

from hf_models.errors import InputError
from hf_models.model_cards import render_card

from .checkpoint import Checkpoint, open_checkpoint
from .plan import Plan, make_plan
from .report import REPORT, write_json
from .shards import check_shards, compare_shards, progress_bar, read_shards, sha256, source_batches, split, write_shards
from .source import Source, find_source

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
RELOAD_BYTES = 1.5e9  # models up to this size are also loaded as a user would


def convert(
    source: str | Path,
    output: str | Path,
    *,
    name: str | None = None,
    original_config: str | Path | None = None,
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
        original_config: JSON file with the arguments of the original constructor, for other checkpoints.
        weights: `"model"` or `"ema"`, where a training checkpoint holds both.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`; by default that of the checkpoint.
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
    output = Path(output)
    _check_output(output, Path(source), overwrite)
    found = find_source(source)
    checkpoint = open_checkpoint(found, weights)
    plan = make_plan(checkpoint, name, original_config)
    target = _choose_dtype(checkpoint, plan, dtype)
    for key, tensor in plan.expected.items():
        plan.expected[key] = tensor.to(target) if tensor.is_floating_point() else tensor
    shards = split(plan.expected, max_shard_size)
    hashes = _hash(found, allow_unknown, progress)
    report = _report(checkpoint, plan, target, hashes)
    if dry_run:
        for names in shards.values():
            for _ in source_batches(checkpoint, names, plan.source_of, plan.expected):
                pass  # reading finds values that are not finite
        return report
    size = sum(tensor.nbytes for tensor in plan.expected.values())
    with _appearing(output, size) as folder:
        write_shards(folder, shards, checkpoint, plan.source_of, plan.expected, progress)
        plan.config.architectures = [plan.family.model_class.__name__]
        plan.config.dtype = target
        plan.config.save_pretrained(folder)
        _image_processor(found, plan).save_pretrained(folder)
        card = render_card(plan.zoo_model, plan.config, conversion=_provenance(report))
        (folder / "README.md").write_text(card, encoding="utf-8")
        written = read_shards(folder)
        check_shards(folder, written, plan.expected, progress)
        compare_shards(folder, written, checkpoint, plan.source_of, plan.expected, progress)
        if size < RELOAD_BYTES:
            _reload(folder, plan)
        with progress_bar("hash", size, progress) as bar:
            report["files"] = {file: sha256(folder / file, bar) for file in written}
        write_json(folder / REPORT, report)
    return report
