"""Names of tensors as the original network has them, below what training code wraps around it."""

import re
from collections.abc import Iterable

from .containers import CHOICES, choose_weights, kind_of

# what DDP, torch.compile, FSDP, activation checkpoints and DeepSpeed put into the names of a module
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
# what training code keeps beside a network: weights of a loss, statistics, counters of averages
BESIDE = re.compile(r"^(criterion|loss|metric|\w+_(loss|metrics?)|data_preprocessor|n_averaged|steps|ema_)")
EMA_BUFFER = re.compile(r"^ema_")
# a classifier beside a backbone, as mmpretrain and many a training script have it; in the originals it is `head`
CLASSIFIER = re.compile(r"^(head\.fc|head|fc|classifier)\.(weight|bias)$")
BACKBONE = "backbone."


def without_wrappers(name: str) -> str:
    """A name without the parts that wrappers add, at its start or anywhere inside."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def owner_of(where: str, names: Iterable[str], signature: str, weights: str | None) -> tuple[str, str] | None:
    """What the names of a network begin with, such as `"net."`, and which kind of weights it is.

    Args:
        where: The checkpoint, for messages.
        names: All names.
        signature: A name that the network has.
        weights: What the user chose, where there are several.

    Returns:
        `None` if the network is not there.

    Raises:
        InputError: There are several, and nothing says which is meant.
    """
    ends = sorted(name for name in names if name == signature or name.endswith(f".{signature}"))
    owners = {name.removesuffix(signature) or "the network": name.removesuffix(signature) for name in ends}
    if not owners or (len(owners) == 1 and weights is None):
        return next(((owner, kind_of(owner)) for owner in owners.values()), None)
    options = {kind: [owner for owner in owners if kind_of(owner) == kind] for kind in CHOICES}
    kind, owner = choose_weights(where, options, weights)
    return owners[owner], kind


def inside(names: Iterable[str], owner: str, heads: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """Names inside a network, and why the others are none of it.

    Args:
        names: All names.
        owner: What those of the network begin with.
        heads: What the names of a head beside a backbone begin with.

    Returns:
        Name in the network -> name, and name -> reason.
    """
    names = list(names)
    beside = owner.rpartition(".")[0].rpartition(".")[0]  # of "model.backbone.", "model"
    beside = f"{beside}." if beside else ""
    if owner == beside + BACKBONE and any(name.startswith(tuple(beside + head for head in heads)) for name in names):
        owner = beside  # mmseg and its sisters: the whole segmenter is converted
    found = {name.removeprefix(owner): name for name in names if name.startswith(owner)}
    if not any(name.startswith("head.") for name in found) and owner:
        for name in names:
            if name.startswith(beside) and (match := CLASSIFIER.match(name.removeprefix(beside))):
                found[f"head.{match[2]}"] = name
    found = {plain: name for plain, name in found.items() if not BESIDE.match(plain)}
    taken = set(found.values())
    why = f"not in the network, which is {owner}*" if owner else "beside the network"
    ema = "of a hook of mmcv, which saves its running average under the plain names, and the trained weights here"
    return found, {name: ema if EMA_BUFFER.match(name) else why for name in names if name not in taken}
