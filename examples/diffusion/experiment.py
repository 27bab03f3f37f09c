"""Does DCNv4 improve a U-Net of diffusion at equal cost? Three U-Nets are trained, judged and put into one table.

    pip install '.[diffusion]'
    python examples/diffusion/experiment.py DATA OUTPUT [--steps 2000] [--seeds 0 1] [--resume]

DATA holds `train-*.parquet` and `validation.parquet` with the columns `image` and `label`; the label names are
ImageNet wnids. First the CPU time of a step of each U-Net is measured. Then each gets as many steps as cost the same
as `--steps` of the one with convolutions. In the end OUTPUT has `results.csv`, `curves.png` and `samples.png`. A run
that was stopped goes on with `--resume`, to the same weights.
"""

import argparse
import csv
import json
import platform
from collections.abc import Callable
from pathlib import Path

import diffusers
import judging
import kid
import numpy as np
import torch
from arms import ARMS, equal_steps, fastest_layout, measure_costs
from photos import Photos, save_array
from PIL import Image
from training import Training

from hf_models.visualize.figures import OKABE_ITO, PALE, Figure, new_figure, save_figure, style

FIELDS = (
    "model",
    "seed",
    "parameters",
    "steps",
    "cpu_hours",
    "loss",
    "loss_minus_conv",
    "its_error",
    "kid",
    "kid_std",
)
GRID = 12  # images in a row


class Experiment:
    """All trainings, in one folder.

    Args:
        data: Folder of the photos.
        output: Folder for what is found; a file that is there already is not made again.
        settings: `steps`, `seeds`, `batch_size` and `judged`, the number of validation photos.
    """

    def __init__(self, data: Path, output: Path, settings: dict):
        self.output, self.settings = output, settings
        output.mkdir(parents=True, exist_ok=True)
        self.photos = Photos(data, "train", output / "train.npy")
        self.validation = Photos(data, "validation", output / "validation.npy")
        self.validation.keep(settings["judged"])

    def run(self, checkpoint_seconds: float) -> None:
        costs = self.costs()
        steps = equal_steps(costs, self.settings["steps"])
        print(f"steps at equal cost: {steps}", flush=True)
        network = kid.feature_model()
        real = self.array(self.output / "features.npy", lambda: kid.features(network, self.validation.images))
        share = kid.recognised(network, real, self.validation)
        print(f"EfficientNet-Lite0 recognises {share:.1%} of the validation photos among 1,000 classes", flush=True)
        rows = []
        for seed in self.settings["seeds"]:
            for name in ARMS:
                layout, folder = fastest_layout(costs[name]), self.folder(name, seed)
                training = Training(name, layout, self.photos, steps[name], seed, self.settings["batch_size"], folder)
                training.run(checkpoint_seconds)
                rows.append(self.judge(name, seed, network, real))
                print(dict(zip(FIELDS, rows[-1], strict=True)), flush=True)
        with (self.output / "results.csv").open("w", newline="") as file:
            csv.writer(file).writerows([FIELDS, *rows])
        self.draw_samples()
        save_figure(self.curves(), self.output / "curves.png")

    def folder(self, name: str, seed: int) -> Path:
        return self.output / f"{name}-{seed}"

    def costs(self) -> dict[str, dict[str, float]]:
        path = self.output / "costs.json"
        if not path.exists():
            costs = measure_costs(len(self.photos.names), self.settings["batch_size"])
            path.write_text(json.dumps(costs, indent=2) + "\n")
        return json.loads(path.read_text())

    def judge(self, name: str, seed: int, network: torch.nn.Module, real: np.ndarray) -> tuple:
        """A row of `results.csv`; `its_error` is the standard error of the mean difference over the photos."""
        folder = self.folder(name, seed)
        model = ARMS[name].model_class.from_pretrained(folder / "model").eval()
        losses = self.array(folder / "losses.npy", lambda: judging.denoising_losses(model, self.validation))
        samples = self.array(folder / "samples.npy", lambda: judging.sample(model, self.validation.labels).numpy())
        fake = self.array(folder / "features.npy", lambda: kid.features(network, torch.from_numpy(samples)))
        differences = losses - np.load(self.folder("conv", seed) / "losses.npy")
        error = differences.std() / len(differences) ** 0.5
        numbers = (losses.mean(), differences.mean(), error, *kid.kernel_distance(real, fake))
        with (folder / "curve.csv").open(newline="") as file:
            last = list(csv.DictReader(file))[-1]
        hours = f"{float(last['cpu_seconds']) / 3600:.2f}"
        return name, seed, model.num_parameters(), last["step"], hours, *(f"{number:.5f}" for number in numbers)

    def array(self, path: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The content of a file, which is computed first if it is not there."""
        if not path.exists():
            print(f"{path} ...", flush=True)
            save_array(path, compute())
        return np.load(path)

    @style
    def curves(self) -> Figure:
        """The training loss of each U-Net over its cost; the seeds of one have one colour."""
        figure = new_figure(6, 3.6, "Training loss of the predicted noise")
        axes = figure.subplots()
        for name, colour in zip(ARMS, OKABE_ITO, strict=False):
            for number, seed in enumerate(self.settings["seeds"]):
                with (self.folder(name, seed) / "curve.csv").open(newline="") as file:
                    rows = list(csv.DictReader(file))
                hours = [float(row["cpu_seconds"]) / 3600 for row in rows]
                losses = [float(row["train_loss"]) for row in rows]
                axes.plot(hours, losses, color=colour, linewidth=1.2, label=None if number else name)
        axes.set_yscale("log")
        axes.set_xlabel("training cost in hours of CPU time")
        axes.set_ylabel("mean squared error")
        axes.grid(color=PALE, alpha=0.2)
        axes.legend()
        return figure

    def draw_samples(self) -> None:
        """Two rows of photos, then two of samples of each U-Net with the same classes, of the first seed."""
        chosen = np.linspace(0, len(self.validation) - 1, 2 * GRID).astype(int)
        seed = self.settings["seeds"][0]
        of_arms = [np.load(self.folder(name, seed) / "samples.npy") for name in ARMS]
        tiles = np.concatenate([images[chosen] for images in (self.validation.images.numpy(), *of_arms)])
        rows = tiles.reshape(-1, GRID, *tiles.shape[1:])  # (R G, 3, H, W) -> (R, G, 3, H, W)
        # (R, G, 3, H, W) -> (R, H, G, W, 3) -> (R H, G W, 3)
        picture = rows.transpose(0, 3, 1, 4, 2).reshape(rows.shape[0] * rows.shape[3], -1, 3)
        Image.fromarray(picture).resize((picture.shape[1] * 2, picture.shape[0] * 2), Image.Resampling.NEAREST).save(
            self.output / "samples.png"
        )


def check_settings(output: Path, settings: dict, resume: bool) -> None:
    """Refuse a folder with another experiment, or with one that nobody asked to go on with."""
    path = output / "settings.json"
    if path.exists():
        before = json.loads(path.read_text())
        if not resume:
            raise SystemExit(f"{output}: holds an experiment. Go on with --resume, or use another OUTPUT.")
        if any(before[name] != settings[name] for name in settings):
            raise SystemExit(f"{path}: begun with {before}. Use the same settings, or another OUTPUT.")
        return
    output.mkdir(parents=True, exist_ok=True)
    about = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    path.write_text(json.dumps(settings | about, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=2000, help="of the U-Net with convolutions")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--judged", type=int, default=2020, help="validation photos for loss and samples")
    parser.add_argument("--resume", action="store_true", help="go on with the experiment in OUTPUT")
    parser.add_argument("--checkpoint-seconds", type=float, default=180, help="time between checkpoints")
    arguments = parser.parse_args()
    settings = {name: getattr(arguments, name) for name in ("steps", "seeds", "batch_size", "judged")}
    check_settings(arguments.output, settings, arguments.resume)
    Experiment(arguments.data, arguments.output, settings).run(arguments.checkpoint_seconds)


if __name__ == "__main__":
    main()
