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
from pathlib import Path

import numpy as np
import torch
from classification_data import load
from classification_images import LabelledPhotos, opened, prepared
from fine_tuner import FineTuner
from live_view import CurvePicture
from streaming import Shards
from training_options import add_options, open_run, positive, run_from_command_line, training_arguments
from training_photos import Epochs
from transformers import AutoImageProcessor, AutoModelForImageClassification, TrainingArguments, set_seed
from transformers.trainer_utils import EvalPrediction

from hf_models.errors import InputError
from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.inference.loading import loading


def shards(data: str, processor: ImageNetImageProcessor, arguments: TrainingArguments) -> Shards:
    """The training images of a folder of shards, for this process."""
    files = sorted(Path(data).glob("train*.tar")) or sorted(Path(data).glob("train*.parquet"))
    if not files:
        sys.exit(f"{data}: no train*.parquet or train*.tar to stream.")

    return Shards(
        files,
        lambda row, random: prepared(*opened(row, processor), processor, random),
        arguments.per_device_train_batch_size,
        arguments.process_index,
        arguments.world_size,
        arguments.dataloader_num_workers,
    )


def metrics(result: EvalPrediction) -> dict[str, float]:
    """Accuracy, and its mean over the classes, for which small classes count as much as large ones."""
    labels = result.label_ids[known := result.label_ids >= 0]
    right = result.predictions[known].argmax(-1) == labels
    of_classes = [right[labels == label].mean() for label in np.unique(labels)]
    return {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(of_classes))}


def finetune(
    data: str,
    output: Path,
    model: str,
    image_size: int | None = None,
    channels: int | None = None,
    skip_bad_images: bool = False,
    layer_decay: float = 1.0,
    freeze_stages: int = 0,
    ema: float = 0.0,
    resume: bool = False,
    stream: bool = False,
    **options,
) -> dict[str, float]:
    """Train, write the best epoch's model to `output`, and return its metrics on the test or validation set."""
    set_seed(0)
    if stream and skip_bad_images:
        raise InputError("--skip-bad-images: not with --stream, which does not know what to read instead.")
    splits = load(data, stream)
    names = splits["validation"].features["label"].names
    square = {"height": image_size, "width": image_size}
    size = {"size": {"shortest_edge": image_size}, "crop_size": square} if image_size else {}
    with loading(model, "a model to fine-tune"):
        processor = AutoImageProcessor.from_pretrained(model, trust_remote_code=False, **size)
        classifier = AutoModelForImageClassification.from_pretrained(
            model,
            dtype=torch.float32,
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            ignore_mismatched_sizes=True,  # the new classifier
            trust_remote_code=False,
            **({"num_channels": channels} if channels else {}),
        )
    if not isinstance(processor, ImageNetImageProcessor):
        raise InputError(f"{model}: has a {type(processor).__name__}. Write an ImageNetImageProcessor to it.")
    processor.fit_channels(classifier.config.num_channels)
    run, checkpoint = open_run(output, resume)
    photos = {
        name: LabelledPhotos(rows, processor, name == "train", skip_bad=skip_bad_images)
        for name, rows in splits.items()
    }
    arguments = training_arguments(run, "balanced_accuracy", label_smoothing_factor=0.1, **options)
    trainer = FineTuner(
        classifier,
        arguments,
        layer_decay=layer_decay,
        freeze_stages=freeze_stages,
        ema=ema,
        train_dataset=shards(data, processor, arguments) if stream else photos["train"],
        eval_dataset=photos["validation"],
        compute_metrics=metrics,
        callbacks=[CurvePicture(run / "curves.png", "balanced_accuracy")],
    )
    if not stream:
        trainer.add_callback(Epochs(photos["train"]))
    trainer.train(checkpoint)
    measured = trainer.evaluate(photos.get("test", photos["validation"]), metric_key_prefix="best")
    trainer.write(output, processor)
    return {name: measured[f"best_{name}"] for name in ("accuracy", "balanced_accuracy")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, epochs=10, batch_size=32, learning_rate=5e-4)
    parser.add_argument("--image-size", type=positive, help="in pixels; by default the model's own")
    parser.add_argument("--skip-bad-images", action="store_true", help="go on without images that cannot be read")
    parser.add_argument("--stream", action="store_true", help="read the training images from shards as they come")
    parser.add_argument("--channels", type=int, choices=(1, 3, 4), help="of the images; by default the model's own")
    run_from_command_line(finetune, parser)
