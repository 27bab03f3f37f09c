"""Fine-tune any image classifier of this package on your own images, with transformers' Trainer.

    python examples/finetune.py DATA OUTPUT [--model internimage-t] [--epochs 10]

DATA is a folder with one folder of images for each class (below `train` and `validation` if you split them yourself),
a folder of parquet files (`train*.parquet`, `validation*.parquet`), or the id of a data set on the Hub. Without a
validation split, a tenth of the training images is set aside. A test split is measured once, at the end. MODEL is a
converted folder or an id on the Hub; its classifier is replaced by a new one for the classes of DATA. OUTPUT becomes a
model folder. With `--resume`, a killed run goes on from its last epoch (in OUTPUT-run).

`--layer-decay 0.9` lets each layer learn 0.9 times as fast as the next deeper one, as the authors of three of the
families fine-tune large models; `--freeze-stages 2` trains neither the embeddings nor the first two stages.
`--channels 1` makes a model of grey images, `--channels 4` one that sees transparency; the stem is kept for both.
"""

import argparse
import io
import math
import random
import sys
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import torch
from layer_decay import freeze, parameter_groups
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import EvalPrediction, get_last_checkpoint

import hf_models
from hf_models.errors import InputError
from hf_models.inference import read_image

# what the folders of splits may be called
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


def load(data: str) -> datasets.DatasetDict:
    """The splits, `train` and `validation` at least, with the columns `image` and `label`."""
    files = {split: [str(f) for f in Path(data).glob(f"{split}*.parquet")] for split in SPLITS}
    if files["train"]:
        splits = datasets.load_dataset("parquet", data_files={split: found for split, found in files.items() if found})
    elif Path(data).is_dir():
        if left_out := [file for file in Path(data).rglob("*") if file.suffix.lower() in (".avif", ".heic")]:
            # by `datasets`, without a word
            sys.exit(f"{left_out[0]}: such photos are left out, {len(left_out)} in all. Save them as JPEG or WebP.")
        splits = datasets.load_dataset("imagefolder", data_dir=data, data_files=patterns(Path(data)))
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
        splits |= split(splits["train"])
    # read when they are needed, so that a damaged one can be named
    return datasets.DatasetDict(splits).cast_column("image", datasets.Image(decode=False))


def patterns(folder: Path) -> dict[str, str]:
    """Split -> where its images are. A folder of a split holds class folders: one of images is a class of that name.

    Without patterns, `datasets` would take a class "train" or "test tube" for a split, and leave out the others.
    """
    found = {
        split: f"{name}/**"
        for split, names in SPLITS.items()
        for name in names
        if any(inside.is_dir() for inside in (folder / name).glob("*"))
    }
    return found if "train" in found else {"train": "**"}


def split(rows: datasets.Dataset) -> dict[str, datasets.Dataset]:
    """A tenth of each class to validate on, and at least one image; a class of one image is only trained on."""
    labels = rows["label"]
    wanted = {label: max(1, round(count / 10)) if count > 1 else 0 for label, count in Counter(labels).items()}
    chosen = set()
    for index in np.random.default_rng(0).permutation(len(labels)).tolist():
        if wanted[labels[index]]:
            wanted[labels[index]] -= 1
            chosen.add(index)
    if not chosen:
        sys.exit("no class has two images: there is nothing to validate on.")
    rest = [index for index in range(len(labels)) if index not in chosen]
    return {"train": rows.select(rest), "validation": rows.select(sorted(chosen))}


def opened(row: dict, channels: int) -> Image.Image:
    """The image of a row, or an `InputError` that names it."""
    file = io.BytesIO(row["bytes"]) if row["bytes"] else row["path"]
    return read_image(file, row["path"] or "an image of the data", channels=channels)


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

    def __init__(self, processor, channels: int, train: bool):
        self.processor = processor
        self.channels = channels
        self.train = train

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        images = [opened(image, self.channels) for image in rows["image"]]
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
    data: str,
    output: Path,
    model: str,
    image_size: int | None,
    resume: bool,
    layer_decay: float = 1.0,
    freeze_stages: int = 0,
    channels: int | None = None,
    **options,
) -> dict[str, float]:
    """Train, write the best epoch's model to `output`, and return its metrics on the test or validation set."""
    set_seed(0)
    splits = load(data)
    names = splits["train"].features["label"].names
    square = {"height": image_size, "width": image_size}
    size = {"size": {"shortest_edge": image_size}, "crop_size": square} if image_size else {}
    processor = AutoImageProcessor.from_pretrained(model, **size)
    classifier = AutoModelForImageClassification.from_pretrained(
        model,
        dtype=torch.float32,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        ignore_mismatched_sizes=True,  # the new classifier
        **({"num_channels": channels} if channels else {}),
    )
    channels = classifier.config.num_channels
    if channels != 3:
        processor.fit_channels(channels)
    run = Path(f"{output}-run")
    if not resume and run.exists():
        sys.exit(f"{run}: an earlier run. Go on with --resume, or remove it.")
    arguments = TrainingArguments(
        output_dir=str(run),
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
        **options,
    )
    depths = classifier.config.depths
    freeze(classifier, depths, freeze_stages)
    groups = parameter_groups(classifier, depths, arguments.learning_rate, arguments.weight_decay, layer_decay)
    augmenting, plain = Preparation(processor, channels, train=True), Preparation(processor, channels, train=False)
    trainer = Trainer(
        model=classifier,
        args=arguments,
        train_dataset=splits["train"].with_transform(augmenting),
        eval_dataset=splits["validation"].with_transform(plain),
        compute_metrics=metrics,
        optimizers=(torch.optim.AdamW(groups, lr=arguments.learning_rate), None),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(run) if resume and run.exists() else None)
    measured = trainer.evaluate(splits.get("test", splits["validation"]).with_transform(plain))
    trainer.model.save_pretrained(output)
    processor.save_pretrained(output)
    return {name: measured[f"eval_{name}"] for name in ("accuracy", "balanced_accuracy")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default=str(hf_models.default_checkpoint()), help="by default the embedded one")
    parser.add_argument("--image-size", type=int, help="in pixels; by default the model's own")
    parser.add_argument("--epochs", type=float, default=10, dest="num_train_epochs")
    parser.add_argument("--batch-size", type=int, default=32, dest="per_device_train_batch_size")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--layer-decay", type=float, default=1.0, help="1 for none; authors use 0.7 to 0.95")
    parser.add_argument("--freeze-stages", type=int, default=0, help="how many of the first stages are not trained")
    parser.add_argument("--channels", type=int, choices=(1, 3, 4), help="of the images; by default the model's own")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    parser.add_argument("--resume", action="store_true", help="go on where a run was killed")
    try:
        print(finetune(**vars(parser.parse_args())))
    except InputError as error:
        sys.exit(str(error))
