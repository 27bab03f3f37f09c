"""What is timed of an operator, and the check that all its implementations compute the same."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

Size = tuple[int, ...]


@dataclass(frozen=True)
class Implementation:
    """Something to time.

    Args:
        name: As in the results.
        function: Called with `inputs`.
        inputs: What a backward pass computes gradients of.
        same_result: Whether it computes what the operator does; else it is a yardstick.
        has_gradient: Whether its backward pass can be timed.
    """

    name: str
    function: Callable[..., torch.Tensor]
    inputs: tuple[torch.Tensor, ...]
    same_result: bool = True
    has_gradient: bool = True


@dataclass(frozen=True)
class Operator:
    """An operator with a compiled kernel.

    Args:
        kernel: Name of the kernel that it is part of.
        shapes: Name -> size, which begins with the number of images.
        size_format: Writes a size in the results; `size_title` says in the tables what its numbers are.
        units: Size -> in how many units of work the time is divided.
        implementations: (size, dtype, device) -> "ours", then the others, on the same random inputs.
        expected: Size -> what they compute, from the inputs of "ours" in float32.
        gradients: How many of their first inputs stand for the same, so that the gradients must agree; 0 for an
            operator without gradients.
        large_shapes: As `shapes`, but by default timed on a GPU only.
        missing: Device -> a line about peers that are not installed, or nothing.
    """

    kernel: str
    shapes: dict[str, Size]
    size_format: str
    size_title: str
    units: Callable[[Size], float]
    implementations: Callable[[Size, torch.dtype, str], list[Implementation]]
    expected: Callable[[Size], Callable[..., torch.Tensor]]
    gradients: int
    large_shapes: dict[str, Size] = field(default_factory=dict)
    missing: Callable[[str], str] = lambda device: ""


def check_agreement(name: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: float | None = None) -> None:
    """Raise a RuntimeError if the results differ by more than rounding: by default that of `actual.dtype`."""
    difference = ((actual.float() - expected.float()).norm() / expected.float().norm()).item()
    if not difference <= (tolerance or (1e-4 if actual.dtype == torch.float32 else 2e-2)):
        raise RuntimeError(f"{name}: differs by {difference:.1e} of the expected result, so its time says nothing")
