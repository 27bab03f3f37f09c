"""Fine-tune a detector on your own photos with boxes, and perhaps masks, with transformers' Trainer.

    python examples/finetune_detection.py DATA OUTPUT [--head fcos] [--model internimage-t] [--epochs 50]

DATA is laid out as COCO (`annotations/instances_train.json` and `instances_val.json`, and the images in `train/` and
`val/`) or as Pascal VOC (`JPEGImages/`, `Annotations/`, `ImageSets/Main/train.txt` and `val.txt`). The classes are
those of the objects to train on.

MODEL is a converted folder or an id on the Hub: a detector, which gets new last layers, or a classifier, on whose
backbone comes the head that `--head` names. OUTPUT becomes a model folder, for `hf-models detect`. OUTPUT-run holds
checkpoints, the curves and a few predictions. With `--resume`, a killed run goes on from its last epoch, to the same
weights as an unbroken one.

Several GPUs, or the cores of a CPU (`--batch-size` counts the photos of one process):

    torchrun --nproc-per-node 2 examples/finetune_detection.py DATA OUTPUT
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from detection_data import BoxedPhotos, batch, class_names, has_masks, open_split
from detection_model import HEADS, SIZE, build
from fine_tuner import FineTuner
from live_view import CurvePicture, show_picture
from PIL import Image
from training_options import (
    add_options,
    add_photo_options,
    open_run,
    positive,
    run_from_command_line,
    training_arguments,
)
from training_photos import Epochs
from transformers import PreTrainedModel, set_seed
from transformers.trainer_utils import EvalLoopOutput

from hf_models.detection import Detection, class_colours, detect, draw_detections
from hf_models.errors import InputError
from hf_models.evaluate.checkpoint import Loaded
from hf_models.evaluate.coco import COCOEvaluation
from hf_models.evaluate.data.coco_objects import check_masks

SHOWN = 3  # predictions that are drawn
SURE = 0.3  # score of the objects that are drawn


class Measuring(COCOEvaluation):
    """As `hf-models evaluate coco`, with advice for who trains."""

    def check_finite(self, scores: torch.Tensor) -> None:
        """Refuse to measure predictions from NaN."""
        if not scores.isfinite().all():
            raise InputError("the model has diverged: it returns NaN or infinity. Pass a smaller --learning-rate.")


class DetectionTrainer(FineTuner):
    """Measures average precision as `hf-models evaluate coco` does, on whole photos, and draws a few of them."""

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Called by `evaluate`; each process measures its share of the photos."""
        model, photos = self.model.eval(), dataloader.dataset
        kinds = ("box", "mask") if photos.with_masks else ("box",)
        loaded = Loaded(model.name_or_path, "", photos.processor, model)
        evaluation = Measuring(loaded, photos.selection, photos.categories, kinds, batch_size=1)
        own = self.share(photos.count)
        draws = self.args.process_index == 0 and not self.is_fsdp_enabled  # drawing runs the model again
        shown = own[:: max(len(own) // SHOWN, 1)][:SHOWN] if draws else []
        records, skipped = [], []
        for index in own:
            sample = photos.samples[index % photos.count]
            if found := photos.read(index % photos.count):
                image = photos.processor(images=[found[0]], return_tensors="pt")
                measured = evaluation.measure([(image, sample.target)])
                records += measured if index < photos.count else []
                if index in shown:
                    file = Path(self.args.output_dir) / f"prediction-{1 + shown.index(index)}.jpg"
                    show_picture(comparison(*found, model, photos), file, self)
            else:
                skipped.append(sample.target["id"])
        evaluation.content = without(photos.selection.content, set(gather_object(skipped)))
        if all(annotation["iscrowd"] for annotation in evaluation.content["annotations"]):
            raise InputError(f"{photos.selection.path}: no photo with objects can be read. Nothing to measure.")
        outcome = evaluation.reduce(gather_object(records))
        measured = outcome.metrics | {f"box AP {of['label']}": of["box AP"] for of in outcome.details["classes"]}
        measured = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        return EvalLoopOutput(None, None, measured, len(photos))


def without(content: dict[str, list[dict]], images: set[int]) -> dict[str, list[dict]]:
    """Content of COCO's format without some of its images, by their ids."""
    return content | {
        "images": [image for image in content["images"] if image["id"] not in images],
        "annotations": [a for a in content["annotations"] if a["image_id"] not in images],
    }


def comparison(image: Image.Image, objects: list[dict], model: PreTrainedModel, photos: BoxedPhotos) -> Image.Image:
    """A photo with the objects on it, beside the same with those that a model finds."""
    label_of = {number: model.config.id2label[index] for index, number in photos.categories.items()}
    marked = []
    for annotation in objects:
        left, top, width, height = annotation["bbox"]
        box = (left, top, left + width, top + height)
        marked.append(Detection(label_of[annotation["category_id"]], 1.0, box, image.size[::-1]))
    found, colours = detect(model, photos.processor, image, SURE), class_colours(model.config)
    panels = [draw_detections(image, detections, colours) for detections in (marked, found)]
    return Image.fromarray(np.concatenate([np.asarray(panel) for panel in panels], axis=1))


def finetune(
    data: str,
    output: Path,
    model: str,
    head: str = "fcos",
    width: int = 64,
    finest_stride: int | None = None,
    image_size: int | None = None,
    crop_size: int | None = None,
    upside_down: bool = False,
    repeat: int = 1,
    skip_bad_images: bool = False,
    skip_bad_boxes: bool = False,
    layer_decay: float = 1.0,
    freeze_stages: int = 0,
    ema: float = 0.0,
    resume: bool = False,
    **options,
) -> dict[str, float]:
    """Train, write the best epoch's model to `output`, and return its metrics on the validation photos, in percent."""
    set_seed(0)
    trained, validated = (open_split(Path(data), split, skip_bad_boxes) for split in ("train", "validation"))
    names = class_names(trained, validated)
    run, checkpoint = open_run(output, resume)
    detector, processor = build(model, names, has_masks(trained), head, width, image_size, finest_stride)
    if with_masks := getattr(detector.config, "with_masks", False):
        check_masks(trained.content, trained.path)
    # the last batch of an epoch would have another size, which BatchNorms do not like
    arguments = training_arguments(run, "box AP", dataloader_drop_last=True, **options)
    crop_size = crop_size or processor.size.shortest_edge
    options_of_photos = {"repeat": repeat, "skip_bad": skip_bad_images}
    photos = BoxedPhotos(trained, names, processor, crop_size, with_masks, upside_down, **options_of_photos)
    if len(photos) < (size := arguments.train_batch_size * arguments.world_size):
        raise InputError(f"{data}: {len(photos)} photos to train on, a batch has {size}. Pass a smaller --batch-size.")
    if with_masks := with_masks and has_masks(validated):
        check_masks(validated.content, validated.path)
    trainer = DetectionTrainer(
        detector,
        arguments,
        layer_decay=layer_decay,
        freeze_stages=freeze_stages,
        ema=ema,
        train_dataset=photos,
        eval_dataset=BoxedPhotos(validated, names, processor, None, with_masks, skip_bad=skip_bad_images),
        data_collator=batch,
        callbacks=[Epochs(photos), CurvePicture(run / "curves.png", "box AP")],
    )
    trainer.train(checkpoint)
    measured = trainer.evaluate(metric_key_prefix="best")
    trainer.write(output, processor)
    return {name.removeprefix("best_"): value for name, value in measured.items() if " A" in name}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, epochs=50, batch_size=8, learning_rate=5e-4, layer_decay=0.9, ema=0.999)
    parser.add_argument("--head", choices=HEADS, default="fcos", help="for a backbone without one")
    parser.add_argument("--width", type=positive, default=64, help="channels of that head")
    parser.add_argument(
        "--finest-stride", type=positive, help="of the head's first feature map; 4 is for small objects"
    )
    parser.add_argument(
        "--image-size", type=positive, help=f"short side of photos; by default the detector's, else {SIZE}"
    )
    parser.add_argument("--upside-down", action="store_true", help="also turn photos over, which have no up and down")
    add_photo_options(parser)
    parser.add_argument("--skip-bad-boxes", action="store_true", help="go on without objects whose box has no area")
    run_from_command_line(finetune, parser)
