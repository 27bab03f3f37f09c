"""`hf-models evaluate shape-bias`: whether a classifier goes by the shape of things or by their texture.

Source: Geirhos et al., ImageNet-trained CNNs are biased towards texture, ICLR 2019; the rules are those of its code,
https://github.com/bethgelab/model-vs-human.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageClassification

from hf_models.errors import InputError

from .checkpoint import Loaded, load
from .classifier import ClassifierEvaluation, size_seen
from .data.cue_conflict import SIDE, find_stimuli, select_stimuli, shape_categories
from .data.imagenet_classes import outputs
from .data.images import Sample, Selection
from .evaluation import Outcome
from .run import run
from .settings import Settings

Columns = dict[str, list[int]]  # category -> the outputs of its classes


def evaluate_shape_bias(
    model: str,
    data: str,
    *,
    subset: bool = False,
    limit: int | None = None,
    picture: Path | None = None,
    settings: Settings | None = None,
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Measure the shape bias of a classifier of ImageNet's classes.

    Args:
        model: Folder, id on the Hub, or "default" for the embedded checkpoint.
        data: Folder of the cue-conflict stimuli, with a folder for each shape.
        subset: Accept fewer stimuli, or a model that has no classes of some categories.
        limit: Evaluate only the first images.
        picture: Image file to write, of each category; needs matplotlib.

    Returns:
        The rows, as in the results, and the details, see [`shape_bias`]; both are empty in all processes but the
        first.

    Raises:
        InputError: Something given cannot be used. Nothing was written.
    """
    settings = settings or Settings()
    settings.check()
    if picture:
        from hf_models.visualize.figures import check_out

        check_out(picture)
    stimuli = find_stimuli(data, subset, limit)
    loaded = load(model, AutoModelForImageClassification, settings.dtype)
    columns = _columns(loaded)
    selection = select_stimuli(data, stimuli, model, columns, subset, limit)
    rows, details = run(ShapeBiasEvaluation(loaded, selection, columns), settings)
    if picture and rows:
        from .shape_picture import draw_shape_bias

        draw_shape_bias({loaded.name: details}, selection.title, picture)
    return rows, details


class ShapeBiasEvaluation(ClassifierEvaluation):
    """Decisions; a record is the shape, the texture and the answer of an image, places in [`shape_categories`].

    The whole stimulus is shown, at its own size of 224 pixels, or resized where the model sees another size.

    Args:
        columns: Category -> the outputs of its classes.
    """

    def __init__(self, loaded: Loaded, selection: Selection, columns: Columns):
        self.columns, self.places = columns, {name: place for place, name in enumerate(shape_categories())}
        seen = size_seen(loaded.processor)
        self.size_shown = (seen.width or seen.shortest_edge, seen.height or seen.shortest_edge)
        self.resized = self.size_shown != (SIDE, SIDE)
        width, height = self.size_shown
        options = f"resized to {height} x {width}, the protocol has {SIDE} x {SIDE}" if self.resized else ""
        super().__init__(loaded, selection, upright=False, depends_on={}, options=options)

    def prepare(self, sample: Sample) -> tuple[torch.Tensor, tuple[str, str]]:
        """The image, (3, H, W), its shape and its texture."""
        image = self.read(sample)
        if image.size != (SIDE, SIDE):
            raise InputError(f"{sample.name}: {image.width} x {image.height} pixels, a stimulus has {SIDE} x {SIDE}.")
        if self.resized:
            image = image.resize(self.size_shown, Image.Resampling(self.loaded.processor.resample))
        kept = {"do_resize": False, "do_center_crop": False}
        return self.loaded.processor(image, return_tensors="pt", **kept).pixel_values[0], sample.target

    def measure(self, batch: list[tuple[torch.Tensor, tuple[str, str]]]) -> list[bytes]:
        """The answer is the category whose classes have the largest mean probability.

        Means are compared by their logarithms, without the softmax's denominator, which all of them share.
        """
        logits, names = self.logits([image for image, _ in batch]), list(self.columns)
        means = torch.stack([logits[:, c].logsumexp(dim=1) - math.log(len(c)) for c in self.columns.values()], dim=1)
        answers = [names[column] for column in means.argmax(dim=1).tolist()]
        return [
            bytes(self.places[name] for name in (*pair, answer))
            for answer, (_, pair) in zip(answers, batch, strict=True)
        ]

    def reduce(self, records: list[bytes]) -> Outcome:
        """The shape bias with its error, and the share of the images that count for it."""
        details = shape_bias(np.frombuffer(b"".join(records), np.uint8).reshape(-1, 3))
        if details["shape_bias"] is None:
            raise InputError(
                f"{self.selection.data.name}: no image is answered with its shape or its texture. Nothing was written."
            )
        metrics = {"shape bias": "shape_bias", "shape bias, standard error": "standard_error"}
        metrics["answered with shape or texture"] = "counted"
        return Outcome({title: details[name] for title, name in metrics.items()}, details)


def shape_bias(decisions: np.ndarray) -> dict[str, Any]:
    """What decisions say, over all and for each shape.

    Args:
        decisions: (images, 3) places in [`shape_categories`]: shape, texture and answer.

    Returns:
        `images`; `shape` and `texture`, how many of them were answered with either; `shape_bias`, the share of `shape`
        in both, in percent, and its binomial `standard_error`, `None` if both are 0; `counted`, the share of both in
        all images; `categories`, the same for the images of each shape, with its name as `category`.
    """
    by_category = [
        {"category": name, **_counts(decisions[decisions[:, 0] == place])}
        for place, name in enumerate(shape_categories())
    ]
    return _counts(decisions) | {"categories": [entry for entry in by_category if entry["images"]]}


def _counts(decisions: np.ndarray) -> dict[str, Any]:
    shapes, textures, answers = decisions.T
    images, shape, texture = len(decisions), int((answers == shapes).sum()), int((answers == textures).sum())
    share = shape / (shape + texture) if shape + texture else None
    return {
        "images": images,
        "shape": shape,
        "texture": texture,
        "shape_bias": None if share is None else 100 * share,
        "standard_error": None if share is None else 100 * (share * (1 - share) / (shape + texture)) ** 0.5,
        "counted": 100 * (shape + texture) / images if images else None,
    }


def _columns(loaded: Loaded) -> Columns:
    """The outputs of the classes of each category that the model has classes of."""
    known, _ = outputs(loaded.model.config)
    found = {name: [known[wnid] for wnid in ids if wnid in known] for name, ids in shape_categories().items()}
    return {name: columns for name, columns in found.items() if columns}
