"""`hf-models evaluate classes`: accuracy of a classifier on images of its own classes, over all and class by class."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageClassification

from hf_models.errors import InputError

from .checkpoint import Loaded, load
from .classifier import ClassifierEvaluation, best_outputs
from .data.images import ImageData, Sample
from .data.labelled import open_labelled
from .data.own_classes import OwnSelection, match_classes, unknown
from .evaluation import Outcome
from .run import run
from .settings import Settings

RECORD = np.dtype("<u4")


def evaluate_classes(
    model: str,
    data: str | ImageData,
    *,
    split: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    picture: Path | None = None,
    settings: Settings | None = None,
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Measure the accuracy of a classifier on images of classes that it has labels for.

    Args:
        model: Folder, id on the Hub, or "default" for the embedded checkpoint.
        data: A folder of class folders, parquet or tar files, or the id of a data set on the Hub; or one of them that
            is open.
        split: See [`open_labelled`], as for `revision` and the columns.
        limit: Evaluate only the first images.
        picture: Image file to write, of which class is taken for which; needs matplotlib.

    Returns:
        The rows, as in the results, and the details: `classes`, one entry for each class, and `mistakes`, one for each
        two classes of which one was taken for the other, most frequent first. Both are empty in all processes but the
        first.

    Raises:
        InputError: Something given cannot be used. Nothing was written.
    """
    settings = settings or Settings()
    settings.check()
    if picture:
        from hf_models.visualize.figures import check_out

        check_out(picture)
    if isinstance(data, str):
        data = open_labelled(data, split, revision, image_column, label_column)
    loaded = load(model, AutoModelForImageClassification, settings.dtype)
    if loaded.model.config.problem_type == "regression" or loaded.model.config.num_labels == 1:
        raise InputError(
            f"{model}: answers with a number, not with classes. Choose a classifier of two or more classes."
        )
    names = [loaded.model.config.id2label[index] for index in range(loaded.model.config.num_labels)]
    selection = match_classes(data, model, names, limit)
    rows, details = run(ClassesEvaluation(loaded, selection, model, names), settings)
    if picture and rows:
        from .confusion import draw_confusion

        draw_confusion(details["classes"], details["mistakes"], f"{loaded.name} on {selection.title}", picture)
    return rows, details


class ClassesEvaluation(ClassifierEvaluation):
    """Answers; a record is the output that is right, the one that the model answers, and whether the right one is
    among the best five.

    Args:
        model: What errors call the model.
        names: Its labels.
    """

    def __init__(self, loaded: Loaded, selection: OwnSelection, model: str, names: list[str]):
        self.called, self.names, self.output_of = model, names, selection.output_of
        super().__init__(loaded, selection, upright=True, depends_on={})

    def prepare(self, sample: Sample) -> tuple[torch.Tensor, int]:
        """The image, (3, H, W), and the output that is right."""
        try:
            return self.prepare_image(sample), self.output_of[sample.target]
        except KeyError:
            raise InputError(unknown(self.selection.data, self.called, self.names, sample.target)) from None

    def measure(self, batch: list[tuple[torch.Tensor, int]]) -> list[bytes]:
        """One image, one record."""
        best = best_outputs(self.logits([image for image, _ in batch]), 5).tolist()
        right = [output for _, output in batch]
        answers = [(r, b[0], r in b) for r, b in zip(right, best, strict=True)]
        return [np.array(answer, RECORD).tobytes() for answer in answers]

    def reduce(self, records: list[bytes]) -> Outcome:
        """Accuracies; the balanced one is the mean of the recalls of all classes of which there are images."""
        right, answered, among_five = np.frombuffer(b"".join(records), RECORD).reshape(-1, 3).T
        number = len(self.names)
        images, answers = (np.bincount(outputs, minlength=number) for outputs in (right, answered))
        hits = np.bincount(right[right == answered], minlength=number)
        classes = [
            {
                "label": self.names[index],
                "images": int(images[index]),
                "answers": int(answers[index]),
                "right": int(hits[index]),
                "recall": _percentage(hits[index], images[index]),
                "precision": _percentage(hits[index], answers[index]),
            }
            for index in range(number)
            if images[index] or answers[index]
        ]
        pairs, counts = np.unique(np.stack((right, answered))[:, right != answered], axis=1, return_counts=True)
        mistakes = [
            {"label": self.names[pairs[0, i]], "answer": self.names[pairs[1, i]], "images": int(counts[i])}
            for i in np.argsort(-counts, kind="stable")
        ]
        recalls = [entry["recall"] for entry in classes if entry["images"]]
        metrics = {"top-1": _percentage(hits.sum(), len(right)), "balanced accuracy": float(np.mean(recalls))}
        if number > 5:
            metrics["top-5"] = _percentage(among_five.sum(), len(right))
        return Outcome(metrics, {"classes": classes, "mistakes": mistakes})


def _percentage(part: int, whole: int) -> float | None:
    return 100 * int(part) / int(whole) if whole else None
