"""Train the small FlashInternImage that the package carries as its default checkpoint, from scratch.

    pip install '.[train]'
    python examples/train_default.py DATA OUTPUT [--epochs 40] [--family flash_internimage]

DATA holds `train-*.parquet` with the columns `image` and `label`; the label names are ImageNet wnids. Every 20th photo
is not trained on, and tells how good the model is. A run that was killed goes on from its last checkpoint when started
again, to the same weights as an unbroken one. OUTPUT-run holds the checkpoint, the decoded photos, `curves.csv` and
`run.json` (settings and environment).

OUTPUT becomes a model folder: half-precision weights, labels with their real names, processor. Its accuracy:

    hf-models evaluate imagenet --model OUTPUT --data DATA/validation.parquet --subset

The learning rate warms up, stays, and falls along a cosine in the last third, or in the last half with `--start`
(https://arxiv.org/abs/2405.18392). A training under way may thus end earlier, with fewer `--epochs`, at little loss.
One that has ended goes on with more: the learning rate rises again and falls once more.
Images are small at first and regularisation weak; both grow together (https://arxiv.org/abs/2104.00298).

`--start MODEL --teacher FOLDER` trains a model further, on what `train_default_teacher.py` has written to FOLDER.

To compare models at equal cost, give the same `--cpu-minutes` to each instead of `--epochs`.

Several GPUs, or the cores of a CPU (`--batch-size` counts the photos of all processes together; behind `--`, because
torchrun refuses `--start` otherwise):

    torchrun --nproc-per-node 2 -- examples/train_default.py DATA OUTPUT

On Linux, MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 save time on a CPU.
"""

import argparse
import inspect
import math
import os
import signal
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from train_default_cost import affordable_epochs
from train_default_data import Augmentation, Lessons, Photos, plain
from train_default_models import CONFIGS
from train_default_optimizer import MuonWithAdamW
from train_default_record import Curves, export, write_environment
from transformers import AutoModelForImageClassification

WARMUP_STEPS = 400  # or a tenth of a short run
COOLDOWN = 1 / 3  # of all steps
COOLDOWN_OF_START = 1 / 2  # of a model that was trained already: it gains most while the learning rate falls
LABEL_SMOOTHING = 0.1
EMA_DECAY = 0.999
LOG_STEPS = 50
VALIDATIONS = 8  # in a run, at most
# (end as a share of all steps, image size, magnitude of RandAugment, share of mixed batches). Few epochs and a small
# model, which learns the photos by heart late if at all: weaker than the usual recipes of 300 epochs.
PHASES = ((0.35, 32, 2, 0.0), (0.7, 48, 3, 0.02), (0.96, 64, 4, 0.1), (1.0, 80, 4, 0.1))
PHASES_OF_START = ((0.5, 64, 4, 0.0), (0.8, 80, 4, 0.0), (0.92, 80, 0, 0.0), (1.0, 96, 0, 0.0))  # with `--start`


@dataclass
class Settings:
    """What a run is; a checkpoint goes on only under the same settings, but for `epochs`."""

    family: str = "flash_internimage"
    epochs: float = 40
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0
    start: str = ""
    teacher: str = ""


class Run:
    """A training: its model, the moving average of its weights, its optimiser and its folder."""

    def __init__(self, data: Path, folder: Path, settings: Settings):
        self.folder, self.settings = folder, settings
        folder.mkdir(parents=True, exist_ok=True)
        self.processes = PartialState(cpu=not torch.cuda.is_available())
        self.device = self.processes.device
        with self.processes.main_process_first():
            self.photos = Photos(data, "train", folder / "train.npy")
        self.chosen, self.held_back = self.photos.held_back()
        self.lessons = Lessons(Path(settings.teacher), self.photos) if settings.teacher else None
        self.phases = PHASES_OF_START if settings.start else PHASES
        torch.manual_seed(settings.seed)
        if settings.start:
            model = AutoModelForImageClassification.from_pretrained(settings.start, dtype=torch.float32)
        else:
            CONFIGS[settings.family].num_labels = len(self.photos.names)
            model = AutoModelForImageClassification.from_config(CONFIGS[settings.family])
        self.model = model.to(self.device).train()
        self.average = AveragedModel(self.model, multi_avg_fn=moving_average, use_buffers=True).eval()
        self.optimizer = MuonWithAdamW(self.model)
        # I-JEPA takes images of other sizes than that of its config only when it is told so
        takes = inspect.signature(self.model.forward).parameters
        self.any_size = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
        several = self.processes.num_processes > 1
        self.parallel_model = DistributedDataParallel(self.model) if several else self.model
        self.step = 0
        self.steps_per_epoch = len(self.chosen) // settings.batch_size
        self.total_steps = round(settings.epochs * self.steps_per_epoch)
        self.augmentations = [Augmentation(*phase[1:], len(self.photos.names)) for phase in self.phases]

    def phase(self) -> int:
        done = self.step / self.total_steps
        return next(i for i, (end, *_) in enumerate(self.phases) if done < end or end == 1)

    def learning_rate(self) -> float:
        """Warm-up, plateau, half a cosine."""
        cooldown = COOLDOWN_OF_START if self.settings.start else COOLDOWN
        left = (self.total_steps - self.step) / (cooldown * self.total_steps)
        decay = 0.5 - 0.5 * math.cos(math.pi * min(left, 1.0))
        warmup = min(WARMUP_STEPS, self.total_steps / 10)
        return self.settings.learning_rate * min((self.step + 1) / warmup, 1.0) * decay

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, position = divmod(self.step, self.steps_per_epoch)
        order = torch.randperm(len(self.chosen), generator=torch.Generator().manual_seed(self.settings.seed + epoch))
        chosen = self.chosen[order[position * self.settings.batch_size :][: self.settings.batch_size]]
        chosen = chosen[self.processes.process_index :: self.processes.num_processes]
        lessons = self.lessons(chosen) if self.lessons else None
        return self.augmentations[self.phase()](self.photos.images[chosen], self.photos.labels[chosen], lessons)

    def train_step(self) -> float:
        """One step; returns its loss on this process's photos.

        All draws depend on seed, step and process alone, so that a run can go on exactly.
        """
        torch.manual_seed(self.settings.seed + 1_000_003 * (self.step + 1) + self.processes.process_index)
        images, labels = (tensor.to(self.device) for tensor in self.batch())
        smoothing = 0.0 if self.lessons else LABEL_SMOOTHING
        loss = F.cross_entropy(self.logits(self.parallel_model, images), labels, label_smoothing=smoothing)
        self.model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step(self.learning_rate())
        self.average.update_parameters(self.model)
        self.step += 1
        return loss.item()

    def any_process(self, condition: bool) -> bool:
        """Whether `condition` holds in one of the processes."""
        if self.processes.num_processes == 1:
            return condition
        flag = torch.tensor(int(condition), device=self.device)
        torch.distributed.all_reduce(flag)
        return flag.item() > 0

    def validates(self) -> bool:
        """Whether the accuracy is measured after this step: at equal distances, the last at the end."""
        return (self.total_steps - self.step) % math.ceil(self.total_steps / VALIDATIONS) == 0

    def logits(self, model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            return model(pixel_values=images, **self.any_size).logits.float()

    @torch.no_grad()
    def top1(self, size: int) -> float:
        """Accuracy of the averaged weights on the photos held back, at `size` pixels, in percent."""
        right = 0
        for images, labels in zip(self.held_back.images.split(250), self.held_back.labels.split(250), strict=True):
            best = self.logits(self.average, plain(images, size).to(self.device)).argmax(dim=-1)
            right += (best.cpu() == labels).sum().item()
        return 100 * right / len(self.held_back)

    def save(self) -> None:
        """Write the checkpoint beside the last one, then put it in its place."""
        part = self.folder / "checkpoint.pt.part"
        torch.save(
            {
                "settings": asdict(self.settings),
                "step": self.step,
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            part,
        )
        os.replace(part, self.folder / "checkpoint.pt")

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if (before := state["settings"] | {"epochs": self.settings.epochs}) != asdict(self.settings):
            raise SystemExit(f"{path}: begun with {before}. Use the same settings, or another OUTPUT.")
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def moving_average(averages: list[torch.Tensor], weights: list[torch.Tensor], updates: torch.Tensor) -> None:
    """Update the moving average, over fewer steps at first, so that it soon forgets how the weights began."""
    decay = min(EMA_DECAY, (1 + updates.item()) / (10 + updates.item()))
    get_ema_multi_avg_fn(decay)(averages, weights, updates)


def run_folder(output: Path) -> Path:
    return Path(f"{output}-run")


def train(data: Path, output: Path, settings: Settings, checkpoint_seconds: float) -> None:
    run = Run(data, run_folder(output), settings)
    run.resume()
    if writes := run.processes.is_main_process:
        write_environment(run)
        curves = Curves(run.folder / "curves.csv", run.step)
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    losses, started, cpu, saved = [], time.perf_counter(), time.process_time(), time.monotonic()
    while run.step < run.total_steps:
        size = run.phases[run.phase()][1]
        losses.append(run.train_step())
        if writes and (run.step % LOG_STEPS == 0 or run.validates()):
            speed = f"{len(losses) * settings.batch_size / (time.perf_counter() - started):.1f}"
            cpu = f"{run.processes.num_processes * (time.process_time() - cpu):.1f}"
            loss, top1 = sum(losses) / len(losses), f"{run.top1(size):.2f}" if run.validates() else ""
            epoch = f"{run.step / run.steps_per_epoch:.3f}"
            curves.add(run.step, epoch, size, f"{run.learning_rate():.3g}", speed, cpu, f"{loss:.4f}", top1)
            losses, started, cpu = [], time.perf_counter(), time.process_time()
        stop = run.any_process(bool(stopped))
        if writes and (stop or time.monotonic() - saved >= checkpoint_seconds):
            run.save()
            saved = time.monotonic()
        if stop:
            raise SystemExit(f"stopped at step {run.step} of {run.total_steps}; the same command goes on.")
    if writes:
        run.save()
        export(run.average.module, run.photos.names, output, run.phases[-1][1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--family", choices=CONFIGS, default=Settings.family)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=float, default=Settings.epochs, help="may be others when a run goes on")
    length.add_argument("--cpu-minutes", type=float, help="as many epochs as cost so much CPU time in all threads")
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size)
    parser.add_argument("--learning-rate", type=float, default=Settings.learning_rate)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--start", default="", help="folder of a model to train further; the family is its own")
    parser.add_argument("--teacher", default="", help="folder of train_default_teacher.py, to learn from it too")
    parser.add_argument("--checkpoint-seconds", type=float, default=180, help="time between checkpoints")
    arguments = vars(parser.parse_args())
    data, output, seconds = (arguments.pop(name) for name in ("data", "output", "checkpoint_seconds"))
    minutes, settings = arguments.pop("cpu_minutes"), Settings(**arguments)
    if minutes:
        run = Run(data, run_folder(output), settings)
        settings = replace(settings, epochs=affordable_epochs(run, minutes))
        print(f"{minutes:g} minutes of CPU time are {settings.epochs:g} epochs", flush=True)
    train(data, output, settings, seconds)


if __name__ == "__main__":
    main()
