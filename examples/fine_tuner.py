"""The Trainer of the fine-tuning examples: layer-wise learning rates, frozen stages, a moving average of weights."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from accelerate.data_loader import DataLoaderShard
from accelerate.utils import parse_flag_from_env
from layer_decay import prepare
from shared_batch_norm import share_batch_norms
from streaming import Shards
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel, Trainer, TrainingArguments

from hf_models.errors import InputError

AVERAGE = "average.pt"  # in a checkpoint
GROUPS = "groups.json"  # in a checkpoint: rate, weight decay and numbers of each group of parameters


class FineTuner(Trainer):
    """A Trainer with AdamW; what it measures and returns is the moving average of the weights, if there is one.

    A run that was killed goes on to the same weights as an unbroken one. Several processes do what one does with as
    many times the batch: BatchNorms see the images of all.

    Args:
        layer_decay: See [`layer_decay.prepare`].
        freeze_stages: See [`layer_decay.prepare`].
        ema: Decay of the moving average; 0 for none.
        options: As for [`Trainer`].
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        layer_decay: float = 1.0,
        freeze_stages: int = 0,
        ema: float = 0.0,
        **options,
    ):
        if ema and parse_flag_from_env("ACCELERATE_USE_FSDP"):
            raise InputError("--ema: the average of weights that FSDP divides is not kept. Pass --ema 0, or use DDP.")
        self.groups = prepare(model, args.learning_rate, args.weight_decay, layer_decay, freeze_stages)
        self.layout = [
            [group["lr"], group["weight_decay"], sum(tensor.numel() for tensor in group["params"])]
            for group in self.groups
        ]
        if args.world_size > 1:
            share_batch_norms(model)
        super().__init__(model, args, **options)
        self.average = None
        if ema:
            self.average = AveragedModel(self.model, multi_avg_fn=partial(moving_average, ema), use_buffers=True)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, which updates the moving average too. The Trainer calls this when it begins, as FSDP needs it."""
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self.groups, lr=self.args.learning_rate)
            if average := self.average:
                self.optimizer.register_step_post_hook(lambda *_: average.update_parameters(self.model))
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        """As in [`Trainer`]; shards divide themselves among the processes."""
        if not isinstance(self.train_dataset, Shards):
            return super().get_train_dataloader()
        return DataLoaderShard(
            self.train_dataset,
            device=self.args.device,
            batch_size=self.train_dataset.batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
        )

    def train(self, resume_from_checkpoint: str | None = None, **options):
        """As in [`Trainer`]; afterwards the model is the average of the best epoch, and computes in float32."""
        if resume_from_checkpoint:
            self._check_the_same(Path(resume_from_checkpoint))
        if self.average and resume_from_checkpoint:
            self._load_average(resume_from_checkpoint)
        result = super().train(resume_from_checkpoint, **options)
        if self.average:
            if best := self.state.best_model_checkpoint:
                self._load_average(best)
            self.model.load_state_dict(self.average.module.state_dict())
            self.average = None
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)  # its forward no longer casts to bfloat16
        return result

    def evaluate(self, *args, **options) -> dict[str, float]:
        """As in [`Trainer`], with the average in place of the weights."""
        with self.averaged_weights():
            return super().evaluate(*args, **options)

    def share(self, count: int) -> range:
        """Which of `count` photos this process measures; what is not below `count` is for nothing.

        All processes have as many: those of FSDP run the model together.
        """
        world = self.args.world_size
        return range(self.args.process_index, -(-count // world) * world, world)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """While it lasts, the model has the average in place of its weights."""
        if not self.average:
            yield
            return
        weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.module.state_dict())
        try:
            yield
        finally:
            self.model.load_state_dict(weights)

    def write(self, output: Path, processor: BaseImageProcessor) -> None:
        """Make `output` a model folder."""
        weights = self.accelerator.get_state_dict(self.model)  # which all processes gather together
        if self.args.should_save:
            self.model.save_pretrained(output, state_dict=weights)
            processor.save_pretrained(output)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in [`Trainer`], which begins each checkpoint by this, with the average beside the weights."""
        super().save_model(output_dir, _internal_call)
        folder = Path(output_dir or self.args.output_dir)
        if self.args.should_save:
            (folder / GROUPS).write_text(json.dumps(self.layout))
            if self.average:
                torch.save(self.average.state_dict(), folder / AVERAGE)

    def _check_the_same(self, checkpoint: Path) -> None:
        """Refuse to go on with another model."""
        run, before = checkpoint.parent, PreTrainedConfig.get_config_dict(checkpoint)[0]
        now = json.loads(self.model.config.to_json_string())
        for what, name in (("another model", "model_type"), ("other classes", "id2label")):
            if before.get(name) != now.get(name):
                raise InputError(f"{run}: begun with {what}. Name another OUTPUT, or remove the folder.")
        if (file := checkpoint / GROUPS).is_file() and json.loads(file.read_text()) != self.layout:
            options = "--learning-rate, --layer-decay or --freeze-stages, or a model or head of another size"
            raise InputError(f"{run}: begun with another {options}. Name another OUTPUT, or remove the folder.")

    def _load_average(self, checkpoint: str) -> None:
        file = Path(checkpoint) / AVERAGE
        if not file.is_file():
            raise InputError(f"{checkpoint}: has no moving average. Resume with --ema 0, as the run was begun.")
        self.average.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))


def moving_average(
    decay: float, averages: list[torch.Tensor], weights: list[torch.Tensor], updates: torch.Tensor
) -> None:
    """Update the moving average, over fewer steps at first, so that it soon forgets how the weights began."""
    get_ema_multi_avg_fn(min(decay, (1 + updates.item()) / (10 + updates.item())))(averages, weights, updates)
