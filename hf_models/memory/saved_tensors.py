"""What a forward pass keeps for its backward pass: on real tensors as on those that have only shapes."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from transformers.modeling_layers import GradientCheckpointingLayer


class SavedTensors(saved_tensors_hooks):
    """Counts what autograd saves while it is entered.

    Each storage counts once and whole, as a part that is saved keeps all of it.

    Args:
        others: Numbers of storages that do not count; see [`storage_number`].
    """

    def __init__(self, others: Iterable[int]):
        self.others = frozenset(others)
        self.storages: dict[int, torch.UntypedStorage] = {}
        super().__init__(self.keep, lambda tensor: tensor)

    def __enter__(self) -> "SavedTensors":
        super().__enter__()
        return self

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count a tensor, and return it."""
        if (number := storage_number(tensor)) not in self.others:
            self.storages[number] = tensor.untyped_storage()  # as long as it is kept, no other gets its number
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


def storage_number(tensor: torch.Tensor) -> int:
    """What tells storages apart; without data, as on the meta device, their addresses do not."""
    return tensor.untyped_storage()._cdata


def activation_bytes(
    model: nn.Module, batch: Mapping[str, torch.Tensor], weights: Iterable[torch.Tensor], checkpointing: bool = False
) -> tuple[int, int]:
    """Bytes of what a forward pass keeps for the backward pass: the images, and what came of them.

    Args:
        model: In training mode; runs once.
        batch: What it is called with.
        weights: Those of the model, and their copies; they do not count.
        checkpointing: Whether the layers of [`checkpointed_layers`] keep nothing but their inputs and are computed
            again in the backward pass.

    Returns:
        After the forward pass, and at most: in the backward pass, when a layer has been computed again. All that came
        after it is gone by then.
    """
    saved = SavedTensors(map(storage_number, weights))
    peak = 0

    def checkpoint(layer: Callable, *inputs: torch.Tensor) -> torch.Tensor:
        nonlocal peak
        for tensor in inputs:
            saved.keep(tensor)
        with SavedTensors(saved.others | saved.storages.keys()) as inside:
            outputs = layer(*inputs)
        peak = max(peak, saved.bytes + inside.bytes)
        return outputs

    layers = checkpointed_layers(model)
    for layer in layers:
        layer.gradient_checkpointing, layer._gradient_checkpointing_func = checkpointing, checkpoint
    with saved:
        model(**batch)
    return saved.bytes, max(peak, saved.bytes)


def checkpointed_layers(model: nn.Module) -> list[GradientCheckpointingLayer]:
    """The layers that can be computed again in the backward pass."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
