"""One set of weights a folder: whole in one file, or in shards that an index names, and never both.

transformers leaves the one beside the other when a model is saved in shards over a whole one, or the other way round.
It then loads the whole one, which may be the older.
"""

import json
from os import PathLike
from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)

WHOLE = ("model.safetensors", "pytorch_model.bin")  # as transformers looks for them
INDEX = "{}.index.json"


def two_sets_of_weights(folder: Path) -> str | None:
    """What is wrong with a folder that holds whole weights and all shards of an index too, and what to do; or `None`.

    An index whose shards are gone does no harm: no one reads it.
    """
    for name in WHOLE:
        whole, index = folder / name, folder / INDEX.format(name)
        if whole.is_file() and index.is_file() and (shards := _shards(index)) and all(map(Path.is_file, shards)):
            newer = index if index.stat().st_mtime_ns > whole.stat().st_mtime_ns else whole
            return (
                f"{folder}: holds {whole.name}, and all shards of {index.name} as well; {newer.name} is newer. "
                f"Delete the one that is not meant, an index with its shards."
            )
        if whole.is_file() or index.is_file():  # what comes later is not loaded
            return None
    return None


def _shards(index: Path) -> set[Path]:
    try:
        return {index.parent / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # whoever loads it says what is wrong
        return set()


class OneSetOfWeights:
    """Mixin of models that leave no other weights behind when they are saved, and tell when they find some."""

    def save_pretrained(self, save_directory: str | PathLike, *args, **kwargs) -> None:
        """As in [`PreTrainedModel`]; whole weights and shards from before, which these replace, are deleted."""
        whole = Path(save_directory, WHOLE[0])
        index = whole.with_name(INDEX.format(whole.name))
        before = _state(whole), _state(index)
        super().save_pretrained(save_directory, *args, **kwargs)
        # another variant, an adapter, or another process of a training that saves, write neither
        wrote_whole, wrote_index = _state(whole) != before[0], _state(index) != before[1]
        if wrote_whole and not wrote_index:
            index.unlink(missing_ok=True)  # transformers has deleted the shards
        elif wrote_index and not wrote_whole:
            whole.unlink(missing_ok=True)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike | None, *args, **kwargs):
        """As in [`PreTrainedModel`], with a warning where a folder holds two sets of weights."""
        if pretrained_model_name_or_path is not None:
            folder = Path(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
            if why := two_sets_of_weights(folder):
                logger.warning(why)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)


def _state(path: Path) -> tuple[int, int, int] | None:
    """Changes when a file is written."""
    if not path.is_file():
        return None
    about = path.stat()
    return about.st_ino, about.st_mtime_ns, about.st_size
