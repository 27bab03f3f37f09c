"""`hf-models evaluate imagenet`: top-1 and top-5 accuracy through AutoImageProcessor and AutoModel, as users do."""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForImageClassification

from hf_models.errors import InputError, reason
from hf_models.zoo import wnid_names

from .checkpoint import Loaded, load
from .classes import evaluate_classes
from .classifier import ClassifierEvaluation, best_outputs
from .data.imagenet import LabelledSelection, OtherClasses, check_labels
from .data.imagenet_classes import TEDDY_BEAR, outputs
from .data.images import Sample
from .data.labelled import open_labelled
from .data.own_classes import UnknownClass
from .evaluation import Outcome
from .run import run
from .settings import Settings

CHANCE = 0.2  # a top-1 accuracy, in percent, that models with shuffled labels reach on 1,000 classes


def evaluate_imagenet(
    model: str,
    data: str,
    *,
    split: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    real: Path | None = None,
    subset: bool = False,
    limit: int | None = None,
    settings: Settings | None = None,
) -> list[dict[str, str]]:
    """Measure the accuracy of a classifier on images of ImageNet-1K's classes.

    If the images are of other classes, and the model knows these, it is [`evaluate_classes`] that measures.

    Args:
        model: Folder, id on the Hub, or "default" for the embedded checkpoint.
        data: A folder of class folders, parquet or tar files, or the id of a data set on the Hub.
        split: See [`open_labelled`], as for `revision` and the columns.
        real: The file `real.json` of the ReaL labels, to measure with these too.
        subset: Accept fewer classes or images than the validation set has.
        limit: Evaluate only the first images.

    Returns:
        The rows, as in the results; an empty list in all processes but the first.

    Raises:
        InputError: Something given cannot be used. Nothing was written.
    """
    settings = settings or Settings()
    settings.check()
    source = open_labelled(data, split, revision, image_column, label_column)
    try:
        selection = check_labels(source, subset, limit)
    except OtherClasses as error:
        if real:
            raise
        try:
            rows, _ = evaluate_classes(model, source, limit=limit, settings=settings)
        except UnknownClass:
            raise error from None
        if rows:
            print("the classes are not ImageNet-1K's: measured as by `hf-models evaluate classes`", file=sys.stderr)
        return rows
    loaded = load(model, AutoModelForImageClassification, settings.dtype)
    rows, _ = run(ImageNetEvaluation(loaded, selection, real and _real_labels(real)), settings)
    return rows


class ImageNetEvaluation(ClassifierEvaluation):
    """Right answers; a record is a byte, 0 or 1, for each question that `measure` answers.

    Args:
        real: Number of an image of the validation set -> right classes, `None` without ReaL labels.
    """

    def __init__(self, loaded: Loaded, selection: LabelledSelection, real: list[list[int]] | None):
        found, beyond = outputs(loaded.model.config)
        self.wnid_of, self.real = selection.wnid_of, real
        unknown = [wnid for wnid in self.wnid_of.values() if wnid not in found and not (beyond and wnid == TEDDY_BEAR)]
        if unknown:
            raise InputError(
                f"{selection.title}: the model knows {len(found)} classes of ImageNet-1K and not {unknown[0]}. "
                "Evaluate it on data with its own classes, with `hf-models evaluate classes`."
            )
        # the outputs that take part, and for each its class
        self.columns = sorted(found.values()) if beyond else slice(None)
        self.wnids = sorted(found, key=found.get)
        digest = hashlib.sha256(json.dumps(real).encode()).hexdigest()
        # the authors do not turn photos as their EXIF data say
        super().__init__(loaded, selection, upright=False, depends_on={"ReaL labels": digest})

    def prepare(self, sample: Sample) -> tuple[torch.Tensor, str, set[str] | None]:
        """The image, (3, H, W), its class and its right classes among the ReaL labels."""
        pixel_values = self.prepare_image(sample)
        try:
            wnid = self.wnid_of[sample.target]
        except KeyError:
            raise InputError(f"{sample.name}: label {sample.target} is no class of ImageNet-1K.") from None
        return pixel_values, wnid, None if self.real is None else self._real(sample.name)

    def measure(self, batch: list[tuple[torch.Tensor, str, set[str] | None]]) -> list[bytes]:
        """For each image: whether the best answer is right, and whether one of five is; with ReaL labels also whether
        it has any, and whether the best answer is among them."""
        logits = self.logits([image for image, _, _ in batch])
        best = best_outputs(logits[:, self.columns], 5).tolist()
        records = []
        for indices, (_, wnid, real) in zip(best, batch, strict=True):
            answers = [self.wnids[index] for index in indices]
            right = [answers[0] == wnid, wnid in answers]
            if real is not None:
                right += [bool(real), answers[0] in real]
            records.append(bytes(right))
        return records

    def reduce(self, records: list[bytes]) -> Outcome:
        """Accuracies; that on ReaL labels is a share of the images that have any."""
        counts = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), -1).sum(axis=0, dtype=np.int64)
        top1, top5, *real = counts.tolist()
        metrics = {"top-1": 100 * top1 / len(records), "top-5": 100 * top5 / len(records)}
        if real:
            metrics["ReaL top-1"] = 100 * real[1] / max(real[0], 1)
        if metrics["top-1"] < CHANCE and len(self.wnid_of) == 1000:
            print("warning: top-1 is at chance level: is the order of the labels right?", file=sys.stderr)
        return Outcome(metrics)

    def _real(self, name: str) -> set[str]:
        number = re.search(r"ILSVRC2012_val_(\d{8})", name)
        if not number or not 1 <= int(number[1]) <= len(self.real):
            raise InputError(
                f"{name}: ReaL labels are for the images ILSVRC2012_val_00000001 to _00050000. Drop --real."
            )
        known = list(wnid_names())
        return {known[index] for index in self.real[int(number[1]) - 1]}


def _real_labels(path: Path) -> list[list[int]]:
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
        if not all(type(index) is int and 0 <= index < 1000 for image in labels for index in image):
            raise ValueError("a class is not within 0 to 999")
        if not isinstance(labels, list):
            raise ValueError("not a list")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not the ReaL labels, real.json ({reason(error)}).") from None
    return labels
