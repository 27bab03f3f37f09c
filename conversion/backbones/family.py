"""What the converter must know about a family, and the checks that hold for all of them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from hf_models.errors import InputError

from ..key_map import KeyMap, Rule, rename

# beyond any model here
MAX_VALUES, MAX_SIZE = 100, 10**6

Shapes = Mapping[str, tuple[int, ...]]
Facts = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """One family's part of the conversion; each lives in the file named after its `model_type`.

    Args:
        model_class: The class with a classifier that a checkpoint becomes.
        signature: A name that each original checkpoint of this family has, and no other family's.
        rules: From original names to ours, without the base model's prefix.
        config_from_original: Builds our config from the original constructor's arguments. The second argument holds
            the facts that the weights show, for what the constructor leaves to them.
        facts_of_weights: What names and shapes show (our names, no prefix), in the original's words. A fact that the
            checkpoint does not show is left out or `None`.
        facts_of_config: The same facts as a config states them.
        adopt: Changes a config to the form that the weights are in, where one network has several.
        heads: First parts of the names (ours) that lie outside the base model.
    """

    model_class: type[PreTrainedModel]
    signature: str
    rules: tuple[Rule, ...]
    config_from_original: Callable[[dict, Facts], PreTrainedConfig]
    facts_of_weights: Callable[[Shapes], Facts]
    facts_of_config: Callable[[Any], Facts]
    adopt: Callable[[Any, Facts], None] = lambda config, facts: None
    heads: tuple[str, ...] = ("classifier.",)

    task = "image-classification"

    @property
    def title(self) -> str:
        return self.model_type

    @property
    def model_type(self) -> str:
        return self.model_class.config_class.model_type

    def rename(self, names) -> dict[str, str]:
        """Names of the original -> names inside the base model, those of the heads as they are."""
        return rename(names, self.rules)

    def full_name(self, name: str) -> str:
        """The name inside `model_class`."""
        return name if name.startswith(self.heads) else f"{self.model_class.base_model_prefix}.{name}"

    def key_map(self, names) -> KeyMap:
        """Where every tensor of `model_class` comes from."""
        return KeyMap({self.full_name(new): old for old, new in self.rename(names).items()})

    def facts(self, shapes: Shapes) -> Facts:
        """What names and shapes show, by the names of `model_class`."""
        prefix = f"{self.model_class.base_model_prefix}."
        return self.facts_of_weights({name.removeprefix(prefix): shape for name, shape in shapes.items()})

    def constants(self, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
        """Tensors that no checkpoint holds: none."""
        return {}

    def is_published_as(self, model) -> bool:
        """Whether an entry of the zoo is a classifier of this family."""
        return (model.task, model.family) == (self.task, self.model_type)


def differences(shown: Facts, stated: Facts) -> dict[str, tuple[Any, Any]]:
    """Facts in which weights and config differ: name -> (in the weights, in the config).

    What the weights do not show, because tensors are missing, is no difference.
    """
    return {
        name: (value, stated[name])
        for name, value in shown.items()
        if value != stated[name] and None not in (value if isinstance(value, list) else [value])
    }


def size(shapes: Shapes, name: str, axis: int = 0) -> int | None:
    """Size of one axis of a tensor, `None` if the checkpoint lacks the tensor or the tensor the axis."""
    shape = shapes.get(name, ())
    return shape[axis] if -len(shape) <= axis < len(shape) else None


def has(shapes: Shapes, pattern: str) -> bool:
    """Whether any name contains the pattern."""
    return any(re.search(pattern, name) for name in shapes)


def count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest index that the pattern's group captures, 0 if it matches nothing."""
    return max((int(match[1]) + 1 for name in shapes if (match := re.search(pattern, name))), default=0)


def depths(shapes: Shapes) -> list[int]:
    """Layers of each stage."""
    stages = count(shapes, r"^encoder\.stages\.(\d+)\.")
    return [count(shapes, rf"^encoder\.stages\.{stage}\.layers\.(\d+)\.") for stage in range(stages)]


def by_stage(shapes: Shapes, name: str, axis: int = 0) -> list[int | None]:
    """Size of one axis of a tensor in each stage; `name` is relative to the stage."""
    return [size(shapes, f"encoder.stages.{stage}.{name}", axis) for stage in range(len(depths(shapes)))]


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
    if missing := [name for name in required if name not in original]:
        raise InputError(f"argument {', '.join(missing)} is missing. Give what the original constructor was given.")
    known = {*required, *defaults, *only, *ignored, "family"}
    if unknown := [name for name in original if name not in known]:
        raise InputError(f"unknown argument {', '.join(unknown)}. Known are: {', '.join(sorted(known))}.")
    for name, supported in only.items():
        if original.get(name, supported[0]) not in supported:
            raise InputError(f"{name}={original[name]!r} is not supported, only {supported[0]!r} is.")
    given = {**defaults, **{name: original[name] for name in (*required, *defaults) if name in original}}
    kinds = {**required, **{name: type(value) for name, value in defaults.items() if value is not None}}
    for name, kind in kinds.items():
        # JSON and YAML write 4 for 4.0
        if kind is float and type(given[name]) is int:
            given[name] = float(given[name])
        if type(given[name]) is not kind:
            raise InputError(f"{name} must be of type {kind.__name__}, got {given[name]!r}.")
    return given
