"""Finds published checkpoints by name, family and task, in one JSON file a family in `data/`."""

import json
import warnings
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from ..errors import InputError
from .backbone import PublishedBackbone
from .checkpoint import PublishedCheckpoint
from .classification import PublishedClassifier
from .detection import PublishedDetector
from .segmentation import PublishedSegmenter

DATA = Path(__file__).with_name("data")
# A new task is one class here.
ENTRIES: tuple[type[PublishedCheckpoint], ...] = (
    PublishedClassifier,
    PublishedSegmenter,
    PublishedDetector,
    PublishedBackbone,
)


def list_models(pattern: str | None = None, *, family: str | None = None, task: str | None = None) -> list[str]:
    """Names of the published checkpoints, by family and size.

    Args:
        pattern: Shell-style pattern for the name, such as `"*22k*"`; case does not matter.
        family: Only this family, such as `"internimage"`.
        task: Only this task, such as `"image-classification"`.

    Raises:
        InputError: The zoo has no such family or task.
    """
    checkpoints = _checkpoints()
    for what, value in (("family", family), ("task", task)):
        if value is not None and value not in (known := {getattr(entry, what) for entry in checkpoints}):
            raise InputError(f"{value}: no such {what}. Choose from {', '.join(sorted(known))}.")
    wanted = (pattern or "*").lower()
    return [
        entry.name
        for entry in checkpoints
        if fnmatchcase(entry.name.lower(), wanted) and family in (None, entry.family) and task in (None, entry.task)
    ]


def find_checkpoint(name: str) -> PublishedCheckpoint:
    """The published checkpoint of this name.

    Args:
        name: Name, file name or alias of a checkpoint, or id of the authors' Hub repository; case does not matter.

    Raises:
        InputError: The zoo has no such checkpoint; the message gives the nearest names.
    """
    if found := published_as(name):
        return found
    names = {entry.name.lower(): entry.name for entry in _checkpoints()}
    nearest = " or ".join(names[match] for match in get_close_matches(name.lower(), names, cutoff=0.4))
    advice = f"Did you mean {nearest}?" if nearest else "`hf-models list` shows them all."
    raise InputError(f"{name}: no such model in the zoo. {advice}")


def published_as(name: str) -> PublishedCheckpoint | None:
    """The published checkpoint of exactly this name, as in [`find_checkpoint`]; `None` where there is none."""
    return {alias.lower(): entry for entry in _checkpoints() for alias in entry.known_as()}.get(name.lower())


def get_model(name: str) -> PublishedCheckpoint:
    """The former name of [`find_checkpoint`], which returns a record and no network."""
    warnings.warn("get_model is now called find_checkpoint.", FutureWarning, stacklevel=2)
    return find_checkpoint(name)


@cache
def _checkpoints() -> tuple[PublishedCheckpoint, ...]:
    checkpoints = []
    for path in sorted(DATA.glob("*.json")):
        # what the top level of a file states holds for each of its entries that does not state otherwise
        shared = json.loads(path.read_text(encoding="utf-8"))
        sections = {entry_class: shared.pop(entry_class.section, ()) for entry_class in ENTRIES}
        shared["citation"] = "\n".join(shared["citation"])
        preprocessing = shared.pop("preprocessing")
        for entry_class, entries in sections.items():
            for entry in entries:
                entry["config_kwargs"] = entry.pop("config")
                checkpoints.append(entry_class.from_json(shared | entry, preprocessing))
    return tuple(checkpoints)
