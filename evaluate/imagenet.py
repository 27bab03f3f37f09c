"""`hf-models evaluate imagenet`: top-1 and top-5 accuracy through AutoImageProcessor and AutoModel, as users do."""

import hashlib
import json
import re
import sys
from io import BytesIO
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoModelForImageClassification, BaseImageProcessor

from hf_models.errors import InputError, reason
from hf_models.inference.classify import read_image
from hf_models.zoo import wnid_names

from .accuracy import Loaded, Settings, check_finite, check_total, keep_rows, key, load, make_rows
from .counting import count
from .data.imagenet import Labels, check_labels, open_imagenet
from .data.imagenet_classes import TEDDY_BEAR, outputs
from .data.images import Sample
from .journal import Journal
from .processes import Processes
from .speed.timing import DTYPES

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

    Args:
        model: Folder, id on the Hub, or "default".
        data: A folder of class folders, parquet or tar files, or the id of a data set on the Hub.
        split: See [`open_imagenet`], as for `revision` and the columns.
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
    source = open_imagenet(data, split, revision, image_column, label_column)
    labels = check_labels(source, subset, limit)
    loaded = load(model, AutoModelForImageClassification, settings.dtype)
    real_labels = real and _real_labels(real)
    options = {"limit": str(limit), "ReaL labels": hashlib.sha256(json.dumps(real_labels).encode()).hexdigest()}
    journal = Journal(settings.results, key(loaded, source, options, settings), settings.resume)
    processes = Processes(settings.device)
    counter = _Counter(loaded, labels, real_labels, settings.dtype, processes.device)
    totals = count(
        islice(source.samples(), limit),
        labels.count,
        counter.prepare,
        counter.measure,
        counter.width,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        journal=journal,
        processes=processes,
    )
    rows = []
    if processes.is_main:
        check_total(source, labels.count, totals.n, journal)
        top1, top5, *real_counts = totals.sums
        metrics = {"top-1": 100 * top1 / totals.n, "top-5": 100 * top5 / totals.n}
        if real:
            metrics["ReaL top-1"] = 100 * real_counts[1] / max(real_counts[0], 1)
        if metrics["top-1"] < CHANCE and len(labels.wnid_of) == 1000:
            print("warning: top-1 is at chance level: is the order of the labels right?", file=sys.stderr)
        named = {labels.prefix + metric: value for metric, value in metrics.items()}
        rows = make_rows(loaded, source, labels.title, named, totals, settings, _size(loaded.processor))
        keep_rows(rows, settings.results)
        journal.remove()
    processes.close()
    return rows


class _Counter:
    """Prepares images and counts right answers.

    Args:
        real: Number of an image of the validation set -> right classes, `None` without ReaL labels.
    """

    def __init__(self, loaded: Loaded, labels: Labels, real: list[list[int]] | None, dtype: str, device: torch.device):
        self.processor, self.model = loaded.processor, loaded.model.to(device)
        self.labels, self.real, self.dtype, self.device = labels, real, dtype, device
        self.width = 2 if real is None else 4
        found, beyond = outputs(loaded.model.config)
        unknown = [
            wnid for wnid in labels.wnid_of.values() if wnid not in found and not (beyond and wnid == TEDDY_BEAR)
        ]
        if unknown:
            raise InputError(
                f"{labels.title}: the model knows {len(found)} classes of ImageNet-1K and not {unknown[0]}. "
                "Evaluate it on data with its own classes."
            )
        # the outputs that take part, and for each its class
        self.columns = torch.tensor(sorted(found.values()), device=device) if beyond else None
        self.wnids = sorted(found, key=found.get)

    def prepare(self, sample: Sample) -> tuple[torch.Tensor, str, set[str] | None]:
        """The image, (3, H, W), its class and its right classes among the ReaL labels."""
        file = BytesIO(sample.image) if isinstance(sample.image, bytes) else sample.image
        pixel_values = self.processor(read_image(file, sample.name), return_tensors="pt").pixel_values[0]
        try:
            wnid = self.labels.wnid_of[sample.target]
        except KeyError:
            raise InputError(f"{sample.name}: label {sample.target} is no class of ImageNet-1K.") from None
        return pixel_values, wnid, None if self.real is None else self._real(sample.name)

    @torch.inference_mode()
    def measure(self, batch: list[tuple[torch.Tensor, str, set[str] | None]]) -> list[list[int]]:
        """For each image: 1 if the best answer is right, 1 if one of five is; with ReaL labels also if it has any,
        and 1 if the best answer is among them."""
        pixel_values = torch.stack([image for image, _, _ in batch]).to(self.device, DTYPES[self.dtype])
        logits = self.model(pixel_values=pixel_values).logits.float()
        check_finite(logits, self.dtype)
        if self.columns is not None:
            logits = logits[:, self.columns]
        best = logits.topk(min(5, logits.shape[1])).indices.tolist()
        counts = []
        for indices, (_, wnid, real) in zip(best, batch, strict=True):
            answers = [self.wnids[index] for index in indices]
            counted = [answers[0] == wnid, wnid in answers]
            if real is not None:
                counted += [bool(real), answers[0] in real]
            counts.append([int(right) for right in counted])
        return counts

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


def _size(processor: BaseImageProcessor) -> str:
    """Height and width of the images that the model sees."""
    size = processor.crop_size if processor.do_center_crop else processor.size
    return f"{size.height} x {size.width}"
