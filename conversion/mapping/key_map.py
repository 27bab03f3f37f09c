"""Renaming by ordered rules: from the parameter names of an original to ours."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from hf_models.errors import InputError


@dataclass(frozen=True)
class Rule:
    """One substitution, applied to every name in which its pattern is found.

    Args:
        pattern: Regular expression, searched anywhere in the name unless anchored.
        replacement: As in `re.sub`: a template, or a function of the match where an index shifts.
        optional: Whether a checkpoint may lack such names. A rule that is not optional and finds none is an error:
            either the checkpoint is another model's or the rule is stale.
    """

    pattern: str
    replacement: str | Callable[[re.Match], str]
    optional: bool = False


@dataclass(frozen=True)
class Origin:
    """Where one tensor of a model comes from: a tensor of the checkpoint, a part of one, or several of them joined.

    Args:
        names: The checkpoint's names; several are equal parts of the tensor, in order.
        axis: Along which several are joined.
        part: (index, count), for one of `count` equal parts of the rows of a single tensor.
    """

    names: tuple[str, ...]
    axis: int = 0
    part: tuple[int, int] = (0, 1)

    def __str__(self) -> str:
        index, count = self.part
        return " + ".join(self.names) + (f" (part {index + 1} of {count})" if count > 1 else "")

    def tensor(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The model's tensor, out of those of the checkpoint."""
        index, count = self.part
        if count > 1:
            return tensors[self.names[0]].chunk(count)[index].clone()  # a storage of its own, as the file format wants
        joined = [tensors[name] for name in self.names]
        return torch.cat(joined, self.axis) if len(joined) > 1 else joined[0]

    def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """The shape of the model's tensor that results from those of the checkpoint."""
        shape = list(shapes[self.names[0]])
        if self.part[1] > 1:
            shape[0] //= self.part[1]
        if len(self.names) > 1:
            shape[self.axis] = sum(shapes[name][self.axis] for name in self.names)
        return tuple(shape)

    def shape_there(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that each of the checkpoint's tensors must have, from that of the model's tensor."""
        there = list(shape)
        if self.part[1] > 1:
            there[0] *= self.part[1]
        if len(self.names) > 1:
            there[self.axis] //= len(self.names)
        return tuple(there)


@dataclass(frozen=True)
class KeyMap:
    """Where the tensors of a model come from.

    Args:
        origins: Our name -> the origin.
        dropped: The checkpoint's names that are not converted -> why.
    """

    origins: dict[str, Origin]
    dropped: dict[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> set[str]:
        """The checkpoint's names that are converted."""
        return {source for origin in self.origins.values() for source in origin.names}

    def shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Our name -> the shape that results from those of the checkpoint."""
        return {name: origin.shape(shapes) for name, origin in self.origins.items()}


def rename(names: Iterable[str], rules: tuple[Rule, ...]) -> dict[str, str]:
    """Apply every rule, in order, to every name.

    Returns:
        The new name of each old one. A name that no rule touches keeps itself.

    Raises:
        InputError: A rule that is not optional matched nothing, or two names became one.
    """
    renamed = {name: name for name in names}
    for number, rule in enumerate(rules, start=1):
        substituted = {old: re.sub(rule.pattern, rule.replacement, new) for old, new in renamed.items()}
        if not rule.optional and substituted == renamed:
            raise InputError(f"rule {number} ({rule.pattern}) matched no key: wrong checkpoint or stale rule.")
        renamed = substituted
    origin = {}
    for old, new in renamed.items():
        if new in origin:
            raise InputError(f"keys {origin[new]} and {old} both become {new}: wrong checkpoint or ambiguous rule.")
        origin[new] = old
    return renamed
