"""`hf-models memory`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from .common import Json, Verbose, one_line_errors

TITLES = {
    "weights": "weights and buffers",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "copies": "weights in bfloat16",
    "exchanged": "held to be exchanged",
}


def memory(
    model: Annotated[str, typer.Argument(help="Name in the zoo, folder, Hub id, or `default`, the embedded one.")],
    gpus: Annotated[int, typer.Option(min=1, help="How many GPUs share the work.")] = 1,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Pixels of a side; by default those of the model, or 512.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of each GPU in a step.")] = 1,
    dtype: Annotated[str, typer.Option(help="float32, or bfloat16 for mixed precision.")] = "float32",
    optimizer: Annotated[str, typer.Option(help="adamw, or sgd with momentum.")] = "adamw",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Compute layers again in the backward pass.")
    ] = False,
    fsdp: Annotated[
        bool, typer.Option("--fsdp", help="Divide weights, gradients and optimizer too (FSDP2), instead of DDP.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Count the memory that training takes on each GPU.

    The model runs without weights and numbers, so this takes seconds and little memory for the largest one too.
    """
    with one_line_errors(verbose):
        from ..memory import training_memory

        counted = training_memory(
            model,
            gpus=gpus,
            image_size=image_size,
            batch_size=batch_size,
            dtype=dtype,
            optimizer=optimizer,
            gradient_checkpointing=gradient_checkpointing,
            fsdp=fsdp,
        )
    if as_json:
        print(json.dumps(asdict(counted) | {"total": counted.total}, indent=2))
        return
    for name, size in counted.parts.items():
        print(f"{size / 2**30:10.2f} GiB  {TITLES[name]}")
    how = f"{gpus} GPUs, {'FSDP2' if fsdp else 'DDP'}" if gpus > 1 or fsdp else "one GPU"
    print(
        f"{counted.total / 2**30:10.2f} GiB  in all on each GPU; {counted.parameters / 1e6:,.1f} M parameters, {how}, "
        f"{batch_size} x {counted.image_size} x {counted.image_size} pixels, {dtype}, {optimizer}"
    )
    for note in counted.notes:
        print(f"note: {note}")
