"""Training of one U-Net to predict noise, which goes on exactly where it was stopped."""

import csv
import os
import time
from pathlib import Path

import torch
from arms import ARMS, LAYOUTS, training_loss
from diffusers import DDPMScheduler
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from photos import Photos, to_latents

LEARNING_RATE = 5e-4  # the same for all arms; nothing was tuned
EMA_DECAY = 0.999
LOG_STEPS = 50
FIELDS = ("step", "cpu_seconds", "train_loss")

# Stable Diffusion's
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE = DDPMScheduler(**SCHEDULE)
TIMESTEPS = NOISE.config.num_train_timesteps


class Training:
    """A U-Net with its moving average and optimiser.

    What a step draws depends on the seed and its number alone: all arms see the same photos, noise and timesteps.

    Args:
        name: Of the arm.
        layout: Memory layout to train in.
        photos: To learn.
        steps: In all.
        seed: Of weights and draws.
        batch_size: Photos of a step.
        folder: For `checkpoint.pt`, `curve.csv` and, in the end, the averaged weights in `model`.
    """

    def __init__(self, name: str, layout: str, photos: Photos, steps: int, seed: int, batch_size: int, folder: Path):
        self.name, self.layout, self.photos, self.steps, self.seed = name, layout, photos, steps, seed
        self.batch_size, self.folder = batch_size, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.model = ARMS[name].build(len(photos.names), seed).to(memory_format=LAYOUTS[layout]).train()
        self.average = EMAModel(self.model.parameters(), decay=EMA_DECAY)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), LEARNING_RATE, weight_decay=0.03)
        self.schedule = get_cosine_schedule_with_warmup(self.optimizer, steps // 20, steps)
        self.step, self.cpu_seconds, self.curve = 0, 0.0, []

    def train_step(self) -> float:
        draw = torch.Generator().manual_seed(1_000_003 * self.seed + self.step)
        chosen = torch.randint(len(self.photos), (self.batch_size,), generator=draw)
        images, labels = self.photos.images[chosen], self.photos.labels[chosen]
        mirrored = torch.rand(self.batch_size, 1, 1, 1, generator=draw) < 0.5
        latents = to_latents(torch.where(mirrored, images.flip(-1), images))
        noise = torch.randn(latents.shape, generator=draw)
        timesteps = torch.randint(TIMESTEPS, (self.batch_size,), generator=draw)
        noisy = NOISE.add_noise(latents, noise, timesteps)
        loss = training_loss(self.model, noisy, timesteps, labels, noise, self.layout)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.average.step(self.model.parameters())
        self.step += 1
        return loss.item()

    def run(self, checkpoint_seconds: float) -> None:
        """Train to the end from the checkpoint, if there is one; nothing where the model is there already."""
        if (self.folder / "model").exists():
            return
        self.resume()
        losses, cpu, saved = [], time.process_time(), time.monotonic()
        while self.step < self.steps:
            losses.append(self.train_step())
            if self.step % LOG_STEPS == 0 or self.step == self.steps:
                self.cpu_seconds += (seconds := time.process_time() - cpu)
                loss = sum(losses) / len(losses)
                self.curve.append((self.step, round(self.cpu_seconds, 1), round(loss, 5)))
                left = (self.steps - self.step) * seconds / len(losses) / 3600
                progress = f"step {self.step} of {self.steps}, loss {loss:.4f}, {left:.2f} CPU hours left"
                print(f"{self.name}, seed {self.seed}: {progress}", flush=True)
                # only here, so that no loss and no second is lost between two lines of the curve
                if time.monotonic() - saved >= checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
                losses, cpu = [], time.process_time()
        self.finish()

    def save(self) -> None:
        state = {"step": self.step, "steps": self.steps, "cpu_seconds": self.cpu_seconds, "curve": self.curve}
        state |= {part: getattr(self, part).state_dict() for part in ("model", "average", "optimizer", "schedule")}
        part = self.folder / "checkpoint.pt.part"
        torch.save(state, part)
        os.replace(part, self.folder / "checkpoint.pt")

    def resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        if state["steps"] != self.steps:
            raise SystemExit(f"{path}: begun for {state['steps']} steps, not {self.steps}. Use another OUTPUT.")
        self.step, self.cpu_seconds, self.curve = state["step"], state["cpu_seconds"], state["curve"]
        for part in ("model", "average", "optimizer", "schedule"):
            getattr(self, part).load_state_dict(state[part])

    def finish(self) -> None:
        """Write the averaged weights as diffusers does, and the curve."""
        with (self.folder / "curve.csv").open("w", newline="") as file:
            csv.writer(file).writerows([FIELDS, *self.curve])
        self.average.copy_to(self.model.parameters())
        self.model.save_pretrained(self.folder / "model.part")
        os.replace(self.folder / "model.part", self.folder / "model")
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)
