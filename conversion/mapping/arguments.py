"""The arguments of an original constructor, or a section of a config of its code."""

import re
from collections.abc import Mapping
from typing import Any

from hf_models.errors import InputError

# beyond any model here
MAX_VALUES, MAX_SIZE = 100, 10**6


def check_extent(arguments: Mapping[str, Any]) -> None:
    """Refuse sizes that no model has, before anything of that size is made.

    Raises:
        InputError: A list is too long, or a number too large.
    """
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            check_extent(value)
        elif isinstance(value, list) and len(value) > MAX_VALUES:
            raise InputError(f"{name} has {len(value):,} values, more than any model here.")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and abs(number) > MAX_SIZE:
                raise InputError(f"{name} is {value!r}, beyond any model here.")


def flat(section: Mapping[str, Any], without: re.Pattern, path: str = "") -> dict[str, Any]:
    """A nested dict with dotted names, in which sections of a list are numbered.

    Args:
        section: The dict.
        without: What to leave out, by its dotted name.
        path: What names begin with.
    """
    found = {}
    for name, value in section.items():
        name = f"{path}{name}"
        if without.search(name):
            continue
        if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
            value = {str(index): part for index, part in enumerate(value)}
        found |= flat(value, without, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def arguments(
    original: Mapping[str, Any],
    *,
    required: Mapping[str, type],
    defaults: Mapping[str, Any],
    only: Mapping[str, tuple],
    ignored: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Take the original constructor's arguments apart.

    Args:
        original: The arguments as the user gave them.
        required: Arguments without a default: name -> type.
        defaults: Arguments with their defaults.
        only: Arguments of which we support certain values: name -> those values, the default first.
        ignored: Arguments that do not change what the network computes.

    Returns:
        Every required argument and every one with a default, as floats where the default is one.

    Raises:
        InputError: An argument is missing, unknown, of another type, or has a value that we do not support.
    """
    check_extent(original)
    for name, supported in only.items():
        if original.get(name, supported[0]) not in supported:
            raise InputError(f"{name}={original[name]!r} is not supported, only {supported[0]!r} is.")
    if missing := [name for name in required if name not in original]:
        raise InputError(f"argument {', '.join(missing)} is missing. Give what the original constructor was given.")
    known = {*required, *defaults, *only, *ignored, "family"}
    if unknown := [name for name in original if name not in known]:
        raise InputError(f"unknown argument {', '.join(unknown)}. Known are: {', '.join(sorted(known))}.")
    given = {**defaults, **{name: original[name] for name in (*required, *defaults) if name in original}}
    kinds = {**required, **{name: type(value) for name, value in defaults.items() if value is not None}}
    for name, kind in kinds.items():
        # JSON and YAML write 4 for 4.0
        if kind is float and type(given[name]) is int:
            given[name] = float(given[name])
        if type(given[name]) is not kind:
            raise InputError(f"{name} must be of type {kind.__name__}, got {given[name]!r}.")
    return given
