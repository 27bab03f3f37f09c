"""What a run of `train_default.py` leaves behind: its curves, what it depends on, and the model folder."""

import csv
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torchvision
import transformers
from train_default_data import image_processor
from transformers import PreTrainedModel

from hf_models.zoo import wnid_names

if TYPE_CHECKING:
    from train_default import Run


class Curves:
    """`curves.csv`: one row every LOG_STEPS steps and at each validation.

    `cpu_seconds` are those of the steps since the row before, of all processes: those of the
    first one times their number.
    """

    FIELDS = (
        *("step", "epoch", "size", "learning_rate"),
        *("images_per_second", "cpu_seconds", "train_loss", "held_back_top1"),
    )

    def __init__(self, path: Path, step: int):
        """Drops the rows after `step`, which a killed run wrote after its last checkpoint."""
        self.path = path
        rows = list(csv.DictReader(path.open())) if path.exists() else []
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.FIELDS)
            writer.writeheader()
            writer.writerows(row for row in rows if int(row["step"]) <= step)

    def add(self, *values: object) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(values)
        print(", ".join(f"{name} {value}" for name, value in zip(self.FIELDS, values, strict=True)), flush=True)


def write_environment(run: "Run") -> None:
    """Keep what a run depends on beside its curves."""
    about = asdict(run.settings) | {
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "steps": run.total_steps,
        "photos": len(run.photos),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "transformers": transformers.__version__,
        "machine": f"{platform.machine()}, {run.device.type}",
        "processes": run.processes.num_processes,
        "threads": torch.get_num_threads(),
    }
    (run.folder / "run.json").write_text(json.dumps(about, indent=2) + "\n")


def export(model: PreTrainedModel, wnids: list[str], output: Path, size: int) -> None:
    """Write the model folder, whose processor shows images of `size` pixels."""
    names = wnid_names()
    model.config.id2label = {i: names[wnid] for i, wnid in enumerate(wnids)}
    model.config.label2id = {name: i for i, name in model.config.id2label.items()}
    # half the size on disk; the config keeps the model's float32, in which it is used and fine-tuned
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    model.save_pretrained(output, state_dict=state)
    image_processor(size).save_pretrained(output)
