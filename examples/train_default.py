"""Train the small SMT that the package carries as its default checkpoint, from scratch, on a parquet image dataset.

    python examples/train_default.py DATA OUTPUT [--epochs 8]

DATA holds `train-*.parquet` and `validation.parquet` with the columns `image` and `label`; the label names are
ImageNet wnids. A killed run goes on from its last checkpoint (in OUTPUT-run) when started again. OUTPUT becomes a
model folder: half-precision weights, labels with their real names, processor. Its accuracy is measured by

    hf-models evaluate imagenet --model OUTPUT --data DATA/validation.parquet --subset
"""

import argparse
import random
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from hf_models.configuration_smt import SMTConfig
from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.modeling_smt import SMTForImageClassification
from hf_models.zoo import wnid_names

IMAGE_SIZE = 64
CROP_PADDING = 8


def image_processor() -> ImageNetImageProcessor:
    return ImageNetImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        resample=Image.Resampling.BICUBIC,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )


def config() -> SMTConfig:
    return SMTConfig(
        image_size=IMAGE_SIZE,
        hidden_sizes=(40, 80, 160, 256),
        depths=(1, 1, 5, 1),
        num_attention_heads=(1, 1, 5, 8),
        mlp_ratios=(3, 3, 3, 2),
        drop_path_rate=0.05,
    )


def augmented(image: Image.Image) -> Image.Image:
    """A random shifted crop, mirrored half the time."""
    image = ImageOps.fit(image.convert("RGB"), (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    if random.random() < 0.5:
        image = ImageOps.mirror(image)
    left, top = random.randint(0, 2 * CROP_PADDING), random.randint(0, 2 * CROP_PADDING)
    padded = np.pad(np.asarray(image), ((CROP_PADDING, CROP_PADDING), (CROP_PADDING, CROP_PADDING), (0, 0)), "reflect")
    return Image.fromarray(padded[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE])


class Collator:
    """Turns rows of the dataset into a batch; augments it for training."""

    def __init__(self, train: bool):
        self.train = train
        self.processor = image_processor()

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        images = [augmented(row["image"]) if self.train else row["image"].convert("RGB") for row in rows]
        return {
            "pixel_values": self.processor(images, return_tensors="pt")["pixel_values"],
            "labels": torch.tensor([row["label"] for row in rows]),
        }


class DefaultTrainer(Trainer):
    """Augments the training batches only."""

    def get_eval_dataloader(self, eval_dataset=None):
        self.data_collator, train_collator = Collator(train=False), self.data_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = train_collator


def load(data: Path, split: str) -> datasets.Dataset:
    return datasets.load_dataset("parquet", data_files={split: str(data / f"{split}*.parquet")}, split=split)


def train(data: Path, output: Path, epochs: float, batch_size: int) -> None:
    train_set, validation_set = load(data, "train"), load(data, "validation")
    model_config = config()
    model_config.num_labels = train_set.features["label"].num_classes
    run = Path(f"{output}-run")
    arguments = TrainingArguments(
        output_dir=str(run),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=256,
        learning_rate=2e-3,
        weight_decay=0.05,
        warmup_steps=400,
        lr_scheduler_type="cosine",
        label_smoothing_factor=0.1,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="steps",
        save_steps=200,
        save_total_limit=2,
        logging_steps=50,
        remove_unused_columns=False,
        dataloader_num_workers=1,
        dataloader_persistent_workers=True,
        report_to="none",
    )
    trainer = DefaultTrainer(
        model=SMTForImageClassification(model_config),
        args=arguments,
        data_collator=Collator(train=True),
        train_dataset=train_set,
        eval_dataset=validation_set,
        compute_metrics=lambda result: {"top1": float((result.predictions.argmax(-1) == result.label_ids).mean())},
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(run) if run.exists() else None)
    export(trainer.model, train_set.features["label"].names, output)


def export(model: SMTForImageClassification, wnids: list[str], output: Path) -> None:
    """Write the model folder."""
    names = wnid_names()
    model.config.id2label = {i: names[wnid] for i, wnid in enumerate(wnids)}
    model.config.label2id = {name: i for i, name in model.config.id2label.items()}
    model.half().save_pretrained(output)
    image_processor().save_pretrained(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    set_seed(0)
    train(arguments.data, arguments.output, arguments.epochs, arguments.batch_size)


if __name__ == "__main__":
    main()
