"""What the fine-tuning examples have in common: their options, the settings of the Trainer, where a run goes on."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import TrainingArguments

import hf_models
from hf_models.errors import InputError

# newer transformers call it so, and warn of the older name
NAMES = {field.name for field in fields(TrainingArguments)}
CHECKPOINTING = "activation_checkpointing" if "activation_checkpointing" in NAMES else "gradient_checkpointing"


def add_options(
    parser: argparse.ArgumentParser,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    layer_decay: float = 1.0,
    ema: float = 0.0,
) -> None:
    """Add the options that every example has, with the defaults of this one.

    Those that end up in `TrainingArguments` are called as they are there.
    """
    add = parser.add_argument
    add("data")
    add("output", type=Path)
    add("--model", default=str(hf_models.default_checkpoint()), help="by default the embedded one")
    add("--epochs", type=float, default=epochs, dest="num_train_epochs")
    add("--batch-size", type=positive, default=batch_size, dest="per_device_train_batch_size", help="of each process")
    add("--learning-rate", type=float, default=learning_rate)
    add("--layer-decay", type=float, default=layer_decay, help="1 for none; authors use 0.7 to 0.95")
    add("--freeze-stages", type=int, default=0, help="how many of the first stages are not trained")
    add("--ema", type=float, default=ema, help="decay of the moving average of the weights, such as 0.999; 0 for none")
    add("--bf16", action="store_true", help="compute in bfloat16")
    add("--gradient-checkpointing", action="store_true", dest=CHECKPOINTING, help="less memory, more time")
    add("--resume", action="store_true", help="go on where a run was killed")


def add_photo_options(parser: argparse.ArgumentParser) -> None:
    """Add those of the examples that crop photos."""
    add = parser.add_argument
    add("--crop-size", type=positive, help="side of what is seen in training; by default the short side")
    add("--repeat", type=positive, default=1, help="how often each epoch sees each photo, in other crops")
    add("--skip-bad-images", action="store_true", help="go on without images that cannot be read")


def positive(text: str) -> int:
    """A whole number from 1 on, for an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(text)


def run_from_command_line(finetune: Callable[..., dict[str, float]], parser: argparse.ArgumentParser) -> None:
    """Train with the options of a command line, and print what was measured, in the first process."""
    try:
        measured = finetune(**vars(parser.parse_args()))
    except InputError as error:
        sys.exit(str(error))
    if PartialState().is_main_process:
        print(measured)


def open_run(output: Path, resume: bool) -> tuple[Path, str | None]:
    """The folder of a run, OUTPUT-run, and the checkpoint that it goes on from, if there is one.

    All processes have looked before one of them makes the folder.
    """
    run = Path(f"{output}-run")
    if output.is_file():
        sys.exit(f"{output}: a file. Name a folder, which the model is written to.")
    if not resume and run.exists():
        sys.exit(f"{run}: an earlier run. Go on with --resume, or remove it.")
    complete = [folder for folder in run.glob("checkpoint-*") if is_complete(folder)]
    latest = max(complete, key=lambda folder: int(folder.name.partition("-")[2]), default=None)
    PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
    return run, latest and str(latest)


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: a process may be killed while it writes one."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())  # the Trainer writes it last
    except (OSError, ValueError):
        return False
    return True


def training_arguments(run: Path, metric: str, **options) -> TrainingArguments:
    """Settings of the Trainer: a cosine after a warm-up, a measurement and a checkpoint after each epoch.

    Args:
        run: Where checkpoints go: the last one and the best one are kept.
        metric: What is measured, and which epoch is the best one.
        options: Further arguments.
    """
    arguments = TrainingArguments(
        output_dir=str(run),
        weight_decay=0.05,
        warmup_steps=0.1,  # of all steps
        lr_scheduler_type="cosine",
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=True,
        logging_strategy="epoch",
        remove_unused_columns=False,  # the columns are made when rows are read
        report_to=[name for name in ("tensorboard", "trackio") if find_spec(name)],
        run_name=run.name,  # under which trackio goes on, too
        **options,
    )
    count = arguments.n_gpu
    if count > 1:  # in DataParallel, which divides neither the labels of detectors nor BatchNorms rightly
        ways = f"torchrun --nproc-per-node {count}, or choose one of them by CUDA_VISIBLE_DEVICES=0"
        raise InputError(f"one process sees {count} GPUs. Start it with {ways}.")
    return arguments
