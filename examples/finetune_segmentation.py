"""Fine-tune a segmentation model on your own photos with masks, with transformers' Trainer.

    python examples/finetune_segmentation.py DATA OUTPUT --classes road car tree [--model internimage-t] [--epochs 50]

DATA holds `images/train/*.jpg` and `images/val/*.jpg`, and of the same names `annotations/train/*.png` and
`annotations/val/*.png`, the masks: the number of each pixel's class, from 0 in the order of `--classes`, and 255 where
nothing is labelled. `--ignore-label 0` is for masks in which 0 means that, and the classes count from 1.

MODEL is a converted folder or an id on the Hub: a segmentation model, which gets a new last layer, or a classifier, on
whose backbone comes the head that `--head` names. OUTPUT becomes a model folder, for `hf-models segment`. OUTPUT-run
holds checkpoints, the curves and a few predictions. With `--resume`, a killed run goes on from its last epoch, to the
same weights as an unbroken one.

Several GPUs, or the cores of a CPU (`--batch-size` counts the photos of one process):

    torchrun --nproc-per-node 2 examples/finetune_segmentation.py DATA OUTPUT --classes road car tree
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from fine_tuner import FineTuner
from live_view import CurvePicture, show_picture
from PIL import Image
from segmentation_data import Labels, MaskedPhotos, find_pairs
from segmentation_model import HEADS, PixelLoss, build, masks_of_classes
from training_options import (
    add_options,
    add_photo_options,
    open_run,
    positive,
    run_from_command_line,
    training_arguments,
)
from training_photos import Epochs
from transformers import default_data_collator, set_seed
from transformers.trainer_utils import EvalLoopOutput

from hf_models.errors import InputError
from hf_models.evaluate.segmentation_metrics import areas, metrics
from hf_models.segmentation import recipe_of, semantic_labels
from hf_models.segmentation.masks import IGNORED
from hf_models.segmentation.overlay import draw_overlay
from hf_models.zoo.segmentation import stock_image_processor
from hf_models.zoo.segmentation_labels import palette

SHOWN = 3  # predictions that are drawn


class SegmentationTrainer(FineTuner):
    """Measures mIoU as `hf-models evaluate` does, on whole photos at their own size, and draws a few of them."""

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Called by `evaluate`; each process measures its share of the photos."""
        model, photos, number = self.model.eval(), dataloader.dataset, self.model.config.num_labels
        names, recipe = list(model.config.id2label.values()), recipe_of(model)
        own = self.share(photos.count)
        shown = own[:: max(len(own) // SHOWN, 1)][:SHOWN] if self.args.process_index == 0 else []
        sums = torch.zeros(3, number, dtype=torch.long)
        for index in own:
            if pair := photos.read(index % photos.count):
                predicted = semantic_labels(model, pair[0], recipe).cpu()
                if index < photos.count:
                    sums += areas(predicted, torch.from_numpy(pair[1]), number)
                if index in shown:
                    file = Path(self.args.output_dir) / f"prediction-{1 + shown.index(index)}.jpg"
                    show_picture(comparison(*pair, predicted, names), file, self)
        sums = self.accelerator.reduce(sums.to(self.args.device))
        means, ious = metrics(sums.cpu().numpy())
        measured = means | {f"IoU {name}": iou for name, iou in zip(names, ious, strict=True)}
        measured = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        return EvalLoopOutput(None, None, measured, len(photos))


def comparison(image: Image.Image, mask: np.ndarray, predicted: torch.Tensor, names: list[str]) -> Image.Image:
    """A photo beside what is labelled and what is predicted."""
    colours = palette(names) + [(0, 0, 0)] * (IGNORED + 1 - len(names))
    overlays = [draw_overlay(image, classes, colours, 0.7) for classes in (torch.from_numpy(mask), predicted)]
    return Image.fromarray(np.concatenate([np.asarray(panel) for panel in (image, *overlays)], axis=1))


def finetune(
    data: str,
    output: Path,
    model: str,
    classes: list[str],
    ignore_label: int | None = None,
    head: str = "upernet",
    width: int = 64,
    image_size: int | None = None,
    crop_size: int | None = None,
    balance: float = 0.0,
    repeat: int = 1,
    skip_bad_images: bool = False,
    layer_decay: float = 1.0,
    freeze_stages: int = 0,
    ema: float = 0.0,
    resume: bool = False,
    **options,
) -> dict[str, float]:
    """Train, write the best epoch's model to `output`, and return its metrics on the validation photos, in percent."""
    set_seed(0)
    labels = Labels(classes, ignore_label)
    pairs, validated = find_pairs(Path(data), "train"), find_pairs(Path(data), "validation")
    pixels = labels.count(pairs)
    labels.check(pixels, labels.count(validated), validated)
    run, checkpoint = open_run(output, resume)
    segmenter = build(model, classes, head, width, image_size)
    recipe = recipe_of(segmenter)
    # the last batch of an epoch would have another size, which BatchNorms do not like
    arguments = training_arguments(run, "mIoU", dataloader_drop_last=True, **options)
    crop_size = crop_size or recipe.short_edge
    photos = MaskedPhotos(pairs, labels, recipe, crop_size, repeat=repeat, skip_bad=skip_bad_images)
    if len(photos) < (batch := arguments.train_batch_size * arguments.world_size):
        raise InputError(
            f"{data}: {len(photos)} photos to train on, a batch has {batch}. Pass a smaller --batch-size."
        )
    if batch == 1 and "upernet" in segmenter.config.model_type:
        raise InputError("--batch-size 1: a BatchNorm of UperNet needs two photos. Pass 2 or more.")
    queries = "mask2former" in segmenter.config.model_type
    trainer = SegmentationTrainer(
        segmenter,
        arguments,
        layer_decay=layer_decay,
        freeze_stages=freeze_stages,
        ema=ema,
        train_dataset=photos,
        eval_dataset=MaskedPhotos(validated, labels, recipe, skip_bad=skip_bad_images),
        data_collator=masks_of_classes if queries else default_data_collator,
        compute_loss_func=None if queries else PixelLoss(pixels.sum(0), balance),
        callbacks=[Epochs(photos), CurvePicture(run / "curves.png", "mIoU")],
    )
    trainer.train(checkpoint)
    measured = trainer.evaluate(metric_key_prefix="best")
    trainer.write(output, stock_image_processor(recipe, segmenter.config.model_type))
    return {name.removeprefix("best_"): value for name, value in measured.items() if "IoU" in name or "Acc" in name}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, epochs=50, batch_size=8, learning_rate=1e-3, layer_decay=0.9, ema=0.999)
    parser.add_argument("--classes", nargs="+", required=True, help="their names, in the order of their numbers")
    parser.add_argument("--ignore-label", type=int, help="number of pixels that do not count, beside 255")
    parser.add_argument("--head", choices=HEADS, default="upernet", help="for a backbone without one")
    parser.add_argument("--width", type=positive, default=64, help="channels of that head")
    parser.add_argument(
        "--image-size", type=positive, help="short side of photos; by default the model's, 512 for a new head"
    )
    parser.add_argument("--balance", type=float, default=0.0, help="0 if pixels count alike, 1 if classes do")
    add_photo_options(parser)
    run_from_command_line(finetune, parser)
