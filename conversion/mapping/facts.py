"""What names and shapes show of a network, to be held against a config."""

import re
from collections.abc import Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
Facts = dict[str, Any]


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
