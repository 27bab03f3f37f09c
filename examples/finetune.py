"""Fine-tune any image classifier of this package on your own images, with transformers' Trainer.

    python examples/finetune.py DATA OUTPUT [--model internimage-t] [--epochs 10]

DATA is a folder with one folder of images for each class (below `train` and `validation` if you split them yourself),
a folder of parquet files (`train*.parquet`, `validation*.parquet`), or the id of a data set on the Hub. Without a
validation split, a tenth of the training images is set aside. MODEL is a converted folder or an id on the Hub; its
classifier is replaced by a new one for the classes of DATA. OUTPUT becomes a model folder. With `--resume`, a killed
run goes on from its last epoch (in OUTPUT-run).
"""

import argparse
import math
import random
import sys
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import EvalPrediction, get_last_checkpoint

import hf_models


def load(data: str) -> tuple[datasets.Dataset, datasets.Dataset]:
    """The training and the validation set, with the columns `image` and `label`."""
    if any(Path(data).glob("train*.parquet")):
        files = {split: f"{data}/{split}*.parquet" for split in ("train", "validation")}
        splits = datasets.load_dataset(
            "parquet", data_files={s: f for s, f in files.items() if any(Path(data).glob(f"{s}*.parquet"))}
        )
    elif Path(data).is_dir():
        splits = datasets.load_dataset("imagefolder", data_dir=data)
    else:
        splits = datasets.load_dataset(data)
    names = {}
    for name, feature in splits["train"].features.items():
        kind = {datasets.Image: "image", datasets.ClassLabel: "label"}.get(type(feature))
        if kind not in (None, *names.values()):
            names[name] = kind
    if len(names) < 2:
        sys.exit(f"{data}: expected a column of images and one of class labels, got {splits['train'].features}.")
    splits = splits.select_columns(list(names)).rename_columns(names)
    if "validation" not in splits:
        splits = splits["train"].train_test_split(0.1, seed=0, stratify_by_column="label")
        return splits["train"], splits["test"]
    return splits["train"], splits["validation"]


def augmented(image: Image.Image, width: int, height: int) -> Image.Image:
    """A random part of an image, 35 to 100 % of its area and 3:4 to 4:3 as wide, mirrored half the time."""
    ratio, area = math.exp(random.uniform(-1, 1) * math.log(4 / 3)), random.uniform(0.35, 1) * math.prod(image.size)
    box_width, box_height = min(image.width, math.sqrt(area * ratio)), min(image.height, math.sqrt(area / ratio))
    left, top = random.uniform(0, image.width - box_width), random.uniform(0, image.height - box_height)
    box = (left, top, left + box_width, top + box_height)
    image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return ImageOps.mirror(image) if random.random() < 0.5 else image


class Preparation:
    """What a data set does to the rows that are read from it; augments the images if they are to train on."""

    def __init__(self, processor, train: bool):
        self.processor = processor
        self.train = train

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        images = [image.convert("RGB") for image in rows["image"]]
        if self.train:
            crop = self.processor.crop_size
            images = [augmented(image, crop["width"], crop["height"]) for image in images]
        # the augmented image has the size already: only normalisation is left to do
        kwargs = {"do_resize": not self.train, "do_center_crop": not self.train}
        return {**self.processor(images, return_tensors="pt", **kwargs), "labels": rows["label"]}


def metrics(result: EvalPrediction) -> dict[str, float]:
    """Accuracy, and its mean over the classes, for which small classes count as much as large ones."""
    right = result.predictions.argmax(-1) == result.label_ids
    of_classes = [right[result.label_ids == label].mean() for label in np.unique(result.label_ids)]
    return {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(of_classes))}


def finetune(
    data: str, output: Path, model: str, *, epochs: float, batch_size: int, learning_rate: float, resume: bool
) -> dict[str, float]:
    """Train, write the best epoch's model to `output`, and return its metrics on the validation set."""
    set_seed(0)
    train, validation = load(data)
    names = train.features["label"].names
    processor = AutoImageProcessor.from_pretrained(model)
    classifier = AutoModelForImageClassification.from_pretrained(
        model,
        dtype=torch.float32,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        ignore_mismatched_sizes=True,  # the new classifier
    )
    run = Path(f"{output}-run")
    if not resume and run.exists():
        sys.exit(f"{run}: an earlier run. Go on with --resume, or remove it.")
    arguments = TrainingArguments(
        output_dir=str(run),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=0.05,
        warmup_steps=0.1,  # of all steps
        lr_scheduler_type="cosine",
        label_smoothing_factor=0.1,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="balanced_accuracy",
        logging_strategy="epoch",
        remove_unused_columns=False,  # the columns are made when rows are read
        report_to="none",
    )
    trainer = Trainer(
        model=classifier,
        args=arguments,
        train_dataset=train.with_transform(Preparation(processor, train=True)),
        eval_dataset=validation.with_transform(Preparation(processor, train=False)),
        compute_metrics=metrics,
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(run) if resume and run.exists() else None)
    measured = trainer.evaluate()
    trainer.model.save_pretrained(output)
    processor.save_pretrained(output)
    return {name: measured[f"eval_{name}"] for name in ("accuracy", "balanced_accuracy")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default=str(hf_models.default_checkpoint()), help="by default the embedded one")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--resume", action="store_true", help="go on where a run was killed")
    print(finetune(**vars(parser.parse_args())))
