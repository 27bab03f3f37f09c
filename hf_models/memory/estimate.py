"""The memory of each GPU in training: what can be said from shapes alone."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from ..deformable_conv import DCNv3, DCNv4
from ..errors import InputError
from ..hub_kernels import get_function
from .dry_run import config_of, empty_model, kept_by_forward, trained_part
from .saved_tensors import checkpointed_layers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}
DEFAULT_SIZE = 512  # pixels of a side, for models whose config names none


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on each GPU, part by part. Not all parts are at their largest at once: the sum is an upper bound of them.

    What is not among them: results that live within one layer, the workspace of convolutions, what the optimizer
    needs while it steps (AdamW of PyTorch on a GPU once more as much as the weights, when the activations are gone),
    what CUDA itself and the gaps between tensors take.

    Args:
        parameters: How many the model has.
        image_size: Pixels of a side.
        weights: With buffers; in float32 whatever is computed in, as accelerate has it.
        gradients: Of the weights, in float32.
        optimizer: Its state.
        activations: What the forward pass keeps for the backward pass.
        copies: Weights in the type that autocast computes in.
        exchanged: What DDP or FSDP holds to exchange it: DDP's buckets of gradients; of FSDP the weights and the
            gradients of what is gathered at one time.
        notes: What the numbers leave out, in sentences.
    """

    parameters: int
    image_size: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    copies: int
    exchanged: int
    notes: tuple[str, ...]

    @property
    def parts(self) -> dict[str, int]:
        """Name -> bytes, of those that are there."""
        names = ("weights", "gradients", "optimizer", "activations", "copies", "exchanged")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def training_memory(
    model: str | Path,
    *,
    gpus: int = 1,
    image_size: int | None = None,
    batch_size: int = 1,
    dtype: str = "float32",
    optimizer: str = "adamw",
    gradient_checkpointing: bool = False,
    fsdp: bool = False,
) -> TrainingMemory:
    """Count what training takes on each of several GPUs; nothing of it is allocated.

    Args:
        model: Name in the zoo, folder, Hub id, or "default" for the embedded checkpoint.
        gpus: How many share the work, each with images of its own.
        image_size: Pixels of a side; by default what the config names.
        batch_size: Images of each GPU in a step.
        dtype: Key of `DTYPES`, what is computed in: with "bfloat16" under autocast or, with FSDP, in layers whose
            weights are gathered in that type.
        optimizer: Key of `OPTIMIZERS`.
        gradient_checkpointing: Whether layers are computed again in the backward pass.
        fsdp: FSDP2 (`fully_shard`) as accelerate applies it, with each of `_no_split_modules` a unit; else DDP.

    Raises:
        InputError: There is no such model, dtype or optimizer; or the model takes no such images, cannot compute
            layers again, or cannot be divided.
    """
    for option, value, known in (("dtype", dtype, DTYPES), ("optimizer", optimizer, OPTIMIZERS)):
        if value not in known:
            raise InputError(f"{value}: no such {option}. Choose from {', '.join(known)}.")
    built = empty_model(config_of(model))
    if gradient_checkpointing and not checkpointed_layers(built):
        raise InputError(f"{model}: none of its layers can be computed again. Leave out gradient checkpointing.")
    if image_size is None:
        of_config = getattr(built.config, "image_size", None)
        image_size = of_config if isinstance(of_config, int) else DEFAULT_SIZE
    parameters = list(built.parameters())
    held = [shard(parameter, gpus) for parameter in parameters] if fsdp else parameters
    weights = _bytes(held)
    exchanged = weights if gpus > 1 else 0  # DDP copies the gradients into its buckets
    if fsdp:
        exchanged = gathered_bytes(built, DTYPES[dtype])
    states = optimizer_bytes(OPTIMIZERS[optimizer], held)
    buffers = _bytes(built.buffers())

    part = trained_part(built)
    notes = []
    if part is not built:
        notes.append("Activations and copies are those of the backbone: the head's depend on what is in the images.")
    if _lacks_kernel(part):
        notes.append(
            "Activations are those of the PyTorch reference. Run `hf-models kernels build`: kernels keep less."
        )
    if fsdp:
        part.to(DTYPES[dtype])
    autocast = None if fsdp or dtype == "float32" else DTYPES[dtype]
    activations, copies = kept_by_forward(part, batch_size, image_size, autocast, gradient_checkpointing)
    return TrainingMemory(
        parameters=sum(parameter.numel() for parameter in parameters),
        image_size=image_size,
        weights=weights + buffers,
        gradients=weights,
        optimizer=states,
        activations=activations,
        copies=copies,
        exchanged=exchanged,
        notes=tuple(notes),
    )


def shard(parameter: torch.Tensor, gpus: int) -> nn.Parameter:
    """What FSDP2 leaves of a parameter on the first GPU: rows, on the last GPUs fewer.

    Raises:
        InputError: It is a scalar.
    """
    if not parameter.ndim:
        raise InputError("--fsdp: FSDP2 takes no scalar parameters, and the model has some. Leave it out, for DDP.")
    rows = math.ceil(parameter.shape[0] / gpus)
    return nn.Parameter(parameter.new_empty(rows, *parameter.shape[1:]))


def optimizer_bytes(
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], parameters: list[nn.Parameter]
) -> int:
    """Bytes of an optimizer's state after a step.

    Args:
        optimizer: What makes it.
        parameters: On the meta device.
    """
    parameters = [nn.Parameter(torch.empty_like(parameter)) for parameter in parameters]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    made = optimizer(parameters)
    made.step()
    return sum(_bytes(filter(torch.is_tensor, state.values())) for state in made.state.values())


def gathered_bytes(model: PreTrainedModel, dtype: torch.dtype) -> int:
    """Bytes that FSDP2 has whole at one time, at most.

    Those are the weights of a unit and of the one that is fetched meanwhile, the gradients of a unit and what they are
    exchanged from, and the weights and gradients of what belongs to no unit, from the first layer to the last.

    Args:
        model: Its units are the modules that it names as not to be split.
        dtype: In which weights and gradients travel.
    """
    units: dict[nn.Module, list[nn.Parameter]] = {}
    owner: dict[nn.Parameter, nn.Module] = {}
    for module in model.modules():  # from the outside in: a parameter belongs to the last that claims it
        if module is model or type(module).__name__ in model._no_split_modules:
            owner |= dict.fromkeys(module.parameters(), module)
    for parameter, module in owner.items():
        units.setdefault(module, []).append(parameter)
    rest = sum(parameter.numel() for parameter in units.pop(model, ()))
    sizes = [sum(parameter.numel() for parameter in unit) for unit in units.values()]
    weights = max((one + next_one for one, next_one in pairwise(sizes)), default=sum(sizes))
    return (weights + 2 * max(sizes, default=0) + 2 * rest) * dtype.itemsize


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _lacks_kernel(model: nn.Module) -> bool:
    deforms = any(isinstance(module, (DCNv3, DCNv4)) for module in model.modules())
    return deforms and get_function("deformable-conv", "deformable_aggregate", "meta") is None
