"""The state dicts in what training code saves: beside an optimizer, beside each other, under whatever key."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_models.errors import InputError, printable

CHOICES = ("model", "ema")  # of --weights
USUAL = ("model", "state_dict", "module")  # keys that messages name; others are found too
EMA = re.compile(r"(^|[._])(ema|swa|averaged?|avg)([._]|$)")
NO_NETWORK = re.compile(r"optim|scheduler")
MAX_DEPTH = 3
# mmengine's hook stores the running average under the usual key, and what is trained under the other one
MMENGINE = (("state_dict",), ("ema_state_dict",))
# timm loads the running average of a checkpoint with these two unless it is told not to
TIMM = (("state_dict",), ("state_dict_ema",))


@dataclass
class StateDict:
    """A set of weights in a file: the keys that lead to it, and its tensors."""

    keys: tuple[str, ...]
    tensors: dict[str, torch.Tensor]


def unwrap(
    path: Path, content: Any, weights: str | None
) -> tuple[dict[str, torch.Tensor], dict[str, str], str | None]:
    """The tensors of a network in what a file holds, and what else is there and why it is left.

    The third value says which weights they are, `"model"` or `"ema"`; it is `None` where there is one set without a
    name, in which names of tensors may tell more.

    Args:
        path: The file, for messages.
        content: What was loaded.
        weights: `"model"` or `"ema"`, where there are both.

    Raises:
        InputError: There are no weights, or several and nothing says which.
    """
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dictionary of tensors. Save a state dict.")
    found = list(_state_dicts(content))
    largest = max((len(entry.tensors) for entry in found), default=0)
    found = [entry for entry in found if 2 * len(entry.tensors) >= largest]  # beside a network, no set of weights
    if not found:
        usual = [key for key in USUAL if key in content]
        none = "no tensors" if usual else f"none of {', '.join(USUAL)}, and no tensors under another key"
        raise InputError(f"{path}: holds {none}{_looks_like(content)}. Its keys are: {some(content)}.")
    if len(found) == 1 and kind_of(".".join(found[0].keys)) == "model":
        if weights == "ema" and not any(kind_of(text(name)) == "ema" for name in found[0].tensors):
            raise InputError(f"{path}: holds no model_ema, only one set of weights. Leave out --weights.")
        return found[0].tensors, _rest(content, found[0], found, "model"), None
    weights, chosen = _choose(path, content, found, weights)
    return chosen.tensors, _rest(content, chosen, found, weights), weights


def class_names(content: Any) -> list[str]:
    """The names of the classes that mmdet and its sisters store beside the weights, in the order of the head.

    Args:
        content: What was loaded from a file. Where it has no names, or not one for each class, there are none.
    """
    meta = content.get("meta") if isinstance(content, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    inside = meta.get("dataset_meta")  # since mmengine
    names = inside.get("classes") if isinstance(inside, dict) else meta.get("CLASSES")
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name.isprintable() for name in names):
        return []
    return list(names) if len(set(names)) == len(names) else []


def choose_weights(where: Any, options: Mapping[str, list[str]], weights: str | None) -> tuple[str, str]:
    """One of several sets of weights, and which kind it is.

    Args:
        where: What holds them, for messages.
        options: `"model"` and `"ema"` -> names of the sets of that kind.
        weights: What the user chose.

    Raises:
        InputError: The user must choose, or there is not exactly one set of what the user chose.
    """
    kinds = [kind for kind in CHOICES if options[kind]]
    if weights is None and len(kinds) > 1:
        names = " and ".join(name for kind in kinds for name in options[kind])
        raise InputError(f"{where}: holds {names}. Choose --weights model or ema (the running average).")
    weights = weights or kinds[0]
    if not options[weights]:
        (other,) = kinds
        none = "no model_ema or other running average" if weights == "ema" else "nothing but a running average"
        raise InputError(f"{where}: holds {none}: it holds {' and '.join(options[other])}. Leave out --weights.")
    if len(options[weights]) > 1:
        raise InputError(f"{where}: holds {' and '.join(options[weights])}, where one is wanted. Save it alone.")
    return weights, options[weights][0]


def kind_of(name: str) -> str:
    """Whether weights of this name are the trained ones or their running average."""
    return "ema" if EMA.search(name) else "model"


def some(names: Iterable) -> str:
    """The first names, on one line."""
    names = [text(name) for name in names]
    return ", ".join(names[:6]) + (f", ... ({len(names)} in all)" if len(names) > 6 else "") if names else "none"


def text(name: Any) -> str:
    """A key of a checkpoint, of whatever type, as text."""
    try:
        return printable(name)
    except ValueError:  # an integer with more digits than Python prints
        return f"a {type(name).__name__}"


def _state_dicts(content: dict, keys: tuple[str, ...] = ()) -> Iterator[StateDict]:
    """The dictionaries of tensors in a dictionary; one that has as many inside it counts as a container."""
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    inside = []
    if len(keys) < MAX_DEPTH:
        for key, value in content.items():
            if isinstance(value, dict) and isinstance(key, str) and not NO_NETWORK.search(key):
                inside += _state_dicts(value, (*keys, key))
    if tensors and all(len(tensors) > len(entry.tensors) for entry in inside):
        yield StateDict(keys, tensors)
    else:
        yield from inside


def _choose(path: Path, content: dict, found: list[StateDict], weights: str | None) -> tuple[str, StateDict]:
    by_name = {".".join(map(text, entry.keys)): entry for entry in found}
    options = {kind: [name for name in by_name if kind_of(name) == kind] for kind in CHOICES}
    keys = sorted(entry.keys for entry in found)
    if keys == sorted(MMENGINE):
        meta = content.get("meta")
        averaged = isinstance(meta, dict) and "mmengine_version" in meta
        if averaged:
            options = {"model": ["ema_state_dict"], "ema": ["state_dict"]}
        weights = weights or ("ema" if averaged else "model")
    elif keys == sorted(TIMM):
        weights = weights or "ema"
    weights, name = choose_weights(path, options, weights)
    return weights, by_name[name]


def _rest(content: dict, chosen: StateDict, found: list[StateDict], weights: str) -> dict[str, str]:
    """Key -> why it is not read, for all but the chosen state dict, on the way to it and in it."""
    others, rest = {entry.keys[0] for entry in found if entry is not chosen}, {}
    for key in chosen.keys:
        for name, value in content.items():
            if name in others and name != key:
                rest[text(name)] = f"not chosen: --weights {weights}"
            elif name != key:
                rest[text(name)] = f"not weights ({type(value).__name__})"
        content = content[key]
    for name, value in content.items():
        if name not in chosen.tensors:
            rest[text(name)] = f"not a tensor ({type(value).__name__})"
    return rest


def _looks_like(content: dict) -> str:
    if "param_groups" in content or any(isinstance(key, str) and NO_NETWORK.search(key) for key in content):
        return ", but the state of an optimizer: this is a checkpoint without its network"
    return ""
