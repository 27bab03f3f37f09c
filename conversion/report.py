"""The record of a conversion: what was read, what became of it, and with which versions."""

import json
import os
import re
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

import hf_models
from hf_models.errors import InputError, reason

from .plan import Plan
from .progress import progress_bar, sha256
from .reading.source import Source

REPORT = "conversion_report.json"
LIBRARIES = ("torch", "transformers", "safetensors")


def hash_source(source: Source, allow_unknown: bool, progress: bool) -> list[dict]:
    """Name, size and sha256 of each file, and whether the sha256 is the published one (`None`: none is published).

    Args:
        source: The files.
        allow_unknown: Accept a file whose sha256 is not the published one.
        progress: Show a progress bar.

    Raises:
        InputError: A file cannot be read, or its sha256 is not the published one.
    """
    records = []
    with progress_bar("hash source", sum(path.stat().st_size for path in source.files), progress) as bar:
        for path in source.files:
            try:
                digest, published = sha256(path, bar), published_sha256(path)
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({reason(error)}). Check its permissions.") from error
            verified = digest.startswith(published) if published else None
            if verified is False and not allow_unknown:
                raise InputError(
                    f"{path}: sha256 {digest[:8]}... is not the published {published[:8]}.... Delete {path.resolve()} "
                    "and download it again, or pass --allow-unknown to convert it as unverified."
                )
            records.append({"name": path.name, "bytes": path.stat().st_size, "sha256": digest, "verified": verified})
    return records


def published_sha256(path: Path) -> str | None:
    """The sha256 that a file's publisher states, or the first digits of it.

    The Hub's cache names a large file by its sha256; PyTorch and OpenMMLab put eight digits at the end of the name.
    """
    if blob := re.fullmatch(r"[0-9a-f]{64}", path.resolve().name):
        return blob[0]
    digits = re.search(r"-([0-9a-f]{8})$", path.stem)
    return digits and digits[1]


def make_report(plan: Plan, dtype: torch.dtype, files: list[dict]) -> dict:
    """Everything about a conversion but the files that it wrote."""
    checkpoint, source = plan.checkpoint, plan.checkpoint.source
    floating = [tensor for tensor in checkpoint.tensors.values() if tensor.is_floating_point()]
    cast = {str(tensor.dtype).removeprefix("torch.") for tensor in floating if tensor.dtype != dtype}
    target = str(dtype).removeprefix("torch.")
    notes = [f"values were cast from {origin} to {target}" for origin in sorted(cast)] + checkpoint.notes
    unknown = plan.published is None and plan.preprocessing is None
    if unknown or (plan.part and not plan.as_published):
        assumed = plan.convertible.assumed_preprocessing(plan.config)
        if unknown:
            stated = [f"{name} {values}" for name, values in plan.convertible.image_statistics(plan.config).items()]
            assumed += f", {', '.join(stated) or 'ImageNet mean and deviation'}"
        notes.append(f"preprocessing is assumed: {assumed}")
    return {
        "source": {
            # where a file lay on this machine is nobody's business
            "given": Path(source.given).name if Path(source.given).exists() else source.given,
            "revision": _revision(source),
            "weights": checkpoint.weights,
            "files": files,
        },
        "name": plan.published and plan.published.name,
        "part": plan.part,
        "config_from": plan.config_from,
        "dtype": target,
        "parameters": sum(t.numel() for name, t in plan.expected.items() if name not in plan.buffers),
        "notes": notes,
        "dropped": checkpoint.dropped | plan.key_map.dropped,
        "written": {name: str(origin) for name, origin in plan.key_map.origins.items()},
        "computed": sorted(plan.constants),
        "versions": {"hf_models": hf_models.__version__, **{library: version(library) for library in LIBRARIES}},
        "date": _date().isoformat(timespec="seconds"),
    }


def provenance(report: dict) -> dict[str, str]:
    """The lines of a report that the card shows."""
    lines = {"converted from": report["source"]["given"]}
    if report["source"]["revision"]:
        lines["revision"] = report["source"]["revision"]
    lines |= {f"sha256 of {file['name']}": file["sha256"] for file in report["source"]["files"]}
    lines |= {"config": report["config_from"], "dtype": report["dtype"], "date": report["date"]}
    return lines | {"versions": ", ".join(f"{name} {number}" for name, number in report["versions"].items())}


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _date() -> datetime:
    """Now; or what SOURCE_DATE_EPOCH says, which makes conversions the same byte by byte."""
    try:
        return datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()), UTC)
    except (ValueError, OverflowError, OSError):
        value = os.environ["SOURCE_DATE_EPOCH"]
        raise InputError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {value}.") from None


def _revision(source: Source) -> str | None:
    """The commit, if the files came from the Hub: its cache keeps them under `models--<id>/snapshots/<commit>`."""
    cached = re.search(r"/models--[^/]+/snapshots/([^/]+)/", source.files[0].as_posix())
    return cached and cached[1]
