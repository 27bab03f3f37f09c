"""Renaming by ordered rules: from the parameter names of an original to ours."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

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
class KeyMap:
    """Where the tensors of a model come from.

    Args:
        source_of: Our name -> the checkpoint's name.
        parts: Our name -> (index, count), for a tensor that is one of `count` equal parts of its source's rows.
        dropped: The checkpoint's names that are not converted -> why.
    """

    source_of: dict[str, str]
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def described(self) -> dict[str, str]:
        """Our name -> the checkpoint's name, and which part of it, for people to read."""
        parts = {name: f" (part {index + 1} of {count})" for name, (index, count) in self.parts.items()}
        return {name: source + parts.get(name, "") for name, source in self.source_of.items()}

    def shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Our name -> the shape that results from those of the checkpoint."""
        found = {}
        for name, source in self.source_of.items():
            found[name] = tuple(shapes[source])
            if name in self.parts:
                found[name] = (found[name][0] // self.parts[name][1], *found[name][1:])
        return found


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
