"""Classes of ImageNet by their WordNet ids, from the names that models and data sets give them."""

import re
from collections.abc import Sequence

from transformers import PreTrainedConfig

from hf_models.errors import InputError
from hf_models.zoo import LABEL_FILES, wnid_names

# A class of ImageNet-1K that ImageNet-22K lacks: images of it count as errors of a 22k model.
TEDDY_BEAR = "n04399382"


def wnids_of(names: Sequence[str], label_set: str) -> list[str] | None:
    """WordNet ids of classes, `None` if they are not all of the label set.

    Args:
        names: WordNet ids, or the names of the zoo. Those of a whole set, in its order, may lack the id with which
            the zoo tells classes of the same name apart.
        label_set: "imagenet-1k" or "imagenet-22k".
    """
    known = wnid_names(label_set)
    if all(name in known for name in names):
        return list(names)
    if [_plain(name) for name in names] == [_plain(name) for name in known.values()]:
        return list(known)
    wnids = {name: wnid for wnid, name in known.items()}
    return [wnids[name] for name in names] if all(name in wnids for name in names) else None


def outputs(config: PreTrainedConfig) -> tuple[dict[str, int], bool]:
    """Which output of a classifier stands for which class of ImageNet-1K.

    Returns:
        WordNet id -> index of the output, and whether the model has classes beyond ImageNet-1K. Such a model is
        evaluated as its authors do: only the outputs of ImageNet-1K's classes take part.

    Raises:
        InputError: The model's classes are not ImageNet's.
    """
    names = [config.id2label[index] for index in range(config.num_labels)]
    for label_set in LABEL_FILES:
        wnids = wnids_of(names, label_set)
        if wnids and len(set(wnids)) == len(names):
            wanted = wnid_names("imagenet-1k")
            found = {wnid: index for index, wnid in enumerate(wnids) if wnid in wanted}
            return found, len(found) < len(names)
    raise InputError(
        f"the model predicts {config.num_labels} classes that are not ImageNet's, such as {names[0]!r}. "
        "Evaluate it with `hf-models evaluate classes`, or put their names or WordNet ids into id2label of its config."
    )


def _plain(name: str) -> str:
    return re.sub(r" \(n\d{8}\)$", "", name)
