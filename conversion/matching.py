"""Which published checkpoint a file is, by its name, and which ones it looks like, by its tensors."""

from pathlib import Path

from transformers import PreTrainedConfig

from hf_models.errors import InputError
from hf_models.zoo import PublishedCheckpoint, find_checkpoint, list_models, published_as

from .mapping.convertible import Convertible
from .mapping.facts import Facts, differences

# published checkpoints of which no conversion would compute the same; their weights do not show it
REFUSED = {
    "mask2former_flash_internimage_s_640_160k_ade20k_ss_nsmx": "its deformable attention has no softmax "
    "(use_softmax=False), and that of transformers always has one: the weights would load and compute something else"
}


def check_not_refused(given: str, name: str | None) -> None:
    """Refuse, by the name that the user gives or the file has, what no conversion would compute the same."""
    for candidate in (name, Path(given).stem):
        if candidate in REFUSED:
            raise InputError(f"{candidate}: cannot be converted: {REFUSED[candidate]}.")


def find_published(given: str, name: str | None) -> PublishedCheckpoint | None:
    """The published checkpoint that the user names, or that the source is named after.

    Raises:
        InputError: The zoo has no checkpoint of the name that the user gives.
    """
    if name is not None:
        return find_checkpoint(name)
    candidates = map(published_as, (given, Path(given).name, Path(given).stem))
    return next(filter(None, candidates), None)


def published_config(published: PublishedCheckpoint, shown: Facts) -> PreTrainedConfig:
    """The config of a published checkpoint, with as many classes as the weights have where these decide."""
    return published.config(shown["num_classes"] if published.weights_tell_num_labels else None)


def fitting(convertible: Convertible, shown: Facts) -> list[str]:
    """Names of the published checkpoints that show the same facts."""
    published = [entry for entry in map(find_checkpoint, list_models()) if entry.network == convertible.network]
    return [
        entry.name
        for entry in published
        if not differences(shown, convertible.facts_of_config(published_config(entry, shown)))
    ]


def advice(convertible: Convertible, shown: Facts) -> str:
    """The end of a message: names that the user may have meant, if there are any."""
    names = fitting(convertible, shown)
    return f" Did you mean --name {' or '.join(names[:3])}?" if names else ""
