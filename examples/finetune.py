"""Fine-tune any image classifier of this package on your own images, with transformers' Trainer.

    python examples/finetune.py DATA OUTPUT [--model internimage-t] [--epochs 10]

DATA is a folder with one folder of images for each class (below `train` and `validation` if you split them yourself),
a folder of parquet files (`train*.parquet`, `validation*.parquet`), or the id of a data set on the Hub. Without a
validation split, a tenth of the training images is set aside. A test split is measured once, at the end. MODEL is a
converted folder or an id on the Hub; its classifier is replaced by a new one for the classes of DATA. OUTPUT becomes a
model folder. With `--resume`, a killed run goes on from its last epoch (in OUTPUT-run).

`--layer-decay 0.9` lets each layer learn 0.9 times as fast as the next deeper one, as the authors of three of the
families fine-tune large models; `--freeze-stages 2` trains neither the embeddings nor the first two stages;
`--ema 0.999` measures and writes the moving average of the weights. OUTPUT-run holds a picture of the curves.
`--stream` reads training images from shards, `train*.tar` (webdataset) or `train*.parquet`, as they come: no copy is
made. `validation*.parquet` names the classes.
`--channels 1` makes a model of grey images, `--channels 4` one that sees transparency; the stem is kept for both.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import torch
from classification_images import Preparation
from fine_tuner import FineTuner
from live_view import CurvePicture
from streaming import Shards
from training_options import add_options, open_run, positive, run_from_command_line, training_arguments
from transformers import AutoImageProcessor, AutoModelForImageClassification, TrainingArguments, set_seed
from transformers.trainer_utils import EvalPrediction

# what the folders of splits may be called
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


def load(data: str, stream: bool = False) -> datasets.DatasetDict:
    """The splits, `train` (unless it is streamed) and `validation` at least, with `image` and `label`."""
    files = {split: [str(f) for f in Path(data).glob(f"{split}*.parquet")] for split in SPLITS}
    if stream and not files["validation"]:
        sys.exit(f"{data}: no validation*.parquet, which tells the classes of what is streamed.")
    if stream:
        del files["train"]
    if stream or files["train"]:
        splits = datasets.load_dataset("parquet", data_files={split: found for split, found in files.items() if found})
    elif Path(data).is_dir():
        if left_out := [file for file in Path(data).rglob("*") if file.suffix.lower() in (".avif", ".heic")]:
            # by `datasets`, without a word
            sys.exit(f"{left_out[0]}: such photos are left out, {len(left_out)} in all. Save them as JPEG or WebP.")
        splits = datasets.load_dataset("imagefolder", data_dir=data, data_files=patterns(Path(data)))
    else:
        splits = datasets.load_dataset(data)
    names = {}
    features = next(iter(splits.values())).features
    for name, feature in features.items():
        kind = {datasets.Image: "image", datasets.ClassLabel: "label"}.get(type(feature))
        if kind not in (None, *names.values()):
            names[name] = kind
    if len(names) < 2:
        sys.exit(f"{data}: expected a column of images and one of class labels, got {features}.")
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


def shards(data: str, prepare: Preparation, arguments: TrainingArguments) -> Shards:
    """The training images of a folder of shards, for this process."""
    files = sorted(Path(data).glob("train*.tar")) or sorted(Path(data).glob("train*.parquet"))
    if not files:
        sys.exit(f"{data}: no train*.parquet or train*.tar to stream.")

    def prepare_row(row: dict) -> dict:
        prepared = prepare({name: [value] for name, value in row.items()})
        return {name: values[0] for name, values in prepared.items()}

    return Shards(
        files,
        prepare_row,
        arguments.per_device_train_batch_size,
        arguments.process_index,
        arguments.world_size,
        arguments.dataloader_num_workers,
    )


def metrics(result: EvalPrediction) -> dict[str, float]:
    """Accuracy, and its mean over the classes, for which small classes count as much as large ones."""
    right = result.predictions.argmax(-1) == result.label_ids
    of_classes = [right[result.label_ids == label].mean() for label in np.unique(result.label_ids)]
    return {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(of_classes))}


def finetune(
    data: str,
    output: Path,
    model: str,
    image_size: int | None = None,
    channels: int | None = None,
    layer_decay: float = 1.0,
    freeze_stages: int = 0,
    ema: float = 0.0,
    resume: bool = False,
    stream: bool = False,
    **options,
) -> dict[str, float]:
    """Train, write the best epoch's model to `output`, and return its metrics on the test or validation set."""
    set_seed(0)
    splits = load(data, stream)
    names = splits["validation"].features["label"].names
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
    run, checkpoint = open_run(output, resume)
    augmenting, plain = Preparation(processor, channels, train=True), Preparation(processor, channels, train=False)
    arguments = training_arguments(run, "balanced_accuracy", label_smoothing_factor=0.1, **options)
    trainer = FineTuner(
        classifier,
        arguments,
        layer_decay=layer_decay,
        freeze_stages=freeze_stages,
        ema=ema,
        train_dataset=shards(data, augmenting, arguments) if stream else splits["train"].with_transform(augmenting),
        eval_dataset=splits["validation"].with_transform(plain),
        compute_metrics=metrics,
        callbacks=[CurvePicture(run / "curves.png", "balanced_accuracy")],
    )
    trainer.train(checkpoint)
    measured = trainer.evaluate(splits.get("test", splits["validation"]).with_transform(plain))
    trainer.write(output, processor)
    return {name: measured[f"eval_{name}"] for name in ("accuracy", "balanced_accuracy")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, epochs=10, batch_size=32, learning_rate=5e-4)
    parser.add_argument("--image-size", type=positive, help="in pixels; by default the model's own")
    parser.add_argument("--stream", action="store_true", help="read the training images from shards as they come")
    parser.add_argument("--channels", type=int, choices=(1, 3, 4), help="of the images; by default the model's own")
    run_from_command_line(finetune, parser)
