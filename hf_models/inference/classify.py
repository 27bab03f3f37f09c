"""Classify images with any checkpoint; by default with the small one that the package carries."""

from pathlib import Path

import torch
from transformers import AutoModelForImageClassification, BaseImageProcessor, PreTrainedModel

from ..errors import InputError
from .default import DEFAULT, model_folder
from .images import read_image
from .loading import load_model


def load_classifier(model: str | Path = DEFAULT) -> tuple[BaseImageProcessor, PreTrainedModel]:
    """Load an image classifier from a folder or the Hub, or "default" for the embedded checkpoint.

    Raises:
        InputError: `model` cannot be loaded.
    """
    return load_model(model_folder(model), AutoModelForImageClassification)


def classify_images(
    images: list[str | Path], model: str | Path = DEFAULT, top_k: int = 5
) -> list[list[dict[str, float | str]]]:
    """Classify image files.

    Args:
        images: Paths of the images.
        model: Folder or Hub id of an image classifier, or "default" for the embedded checkpoint.
        top_k: Number of labels to return for each image, at most the number of classes.

    Returns:
        For each image the `top_k` most probable labels, best first, as `{"label": str, "score": float}`.

    Raises:
        InputError: An image cannot be used, or `model` cannot be loaded.
    """
    pictures = [read_image(path) for path in images]
    processor, classifier = load_classifier(model)
    return [
        best_labels(classifier, processor(picture, return_tensors="pt").pixel_values, top_k) for picture in pictures
    ]


def best_labels(
    classifier: PreTrainedModel, pixel_values: torch.Tensor, top_k: int = 5
) -> list[dict[str, float | str]]:
    """The most probable labels of one prepared image (1, 3, height, width), as `classify_images` returns them."""
    with torch.inference_mode():
        scores = classifier(pixel_values).logits[0].softmax(dim=-1)
    if not scores.isfinite().all():
        raise InputError(f"{classifier.name_or_path}: its scores are not finite. Convert or train it again.")
    best = scores.topk(min(top_k, scores.numel()))
    labels = [classifier.config.id2label[index] for index in best.indices.tolist()]
    return [{"label": label, "score": score} for label, score in zip(labels, best.values.tolist(), strict=True)]
