"""Classify images with any checkpoint; by default with the small one that the package carries."""

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..errors import InputError
from ..image_processing_imagenet import MODES
from .device import choose_device
from .images import read_image
from .loading import CLASSIFIER, load_model, loading
from .names import DEFAULT, model_folder
from .tasks import check_task


def load_classifier(
    model: str | Path = DEFAULT, device: str | None = None
) -> tuple[BaseImageProcessor, PreTrainedModel]:
    """Load an image classifier from a folder or the Hub, or "default" for the embedded checkpoint.

    Args:
        model: Folder, Hub id or "default".
        device: "cpu" or "cuda"; by default the GPU where there is one.

    Raises:
        InputError: `model` cannot be loaded, or takes no images.
    """
    device = choose_device(device)
    load_config(model)  # says so before it loads weights, if the model is for another task
    processor, classifier = load_model(model_folder(model), AutoModelForImageClassification)
    if (channels := getattr(processor, "channels", 3)) not in MODES:
        raise InputError(f"{model}: takes {channels} channels, and images have 1, 3 or 4. Give it arrays in Python.")
    return processor, classifier.to(device)


def load_config(model: str | Path = DEFAULT) -> PreTrainedConfig:
    """The config of an image classifier.

    Raises:
        InputError: `model` cannot be loaded, or is for another task.
    """
    folder = model_folder(model)
    with loading(folder, CLASSIFIER):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    check_task(model, config, "image-classification")
    return config


def classify_images(
    images: list[str | Path], model: str | Path = DEFAULT, top_k: int = 5, device: str | None = None
) -> list[list[dict[str, float | str]]]:
    """Classify image files.

    Args:
        images: Paths of the images.
        model: Folder or Hub id of an image classifier, or "default" for the embedded checkpoint.
        top_k: Number of labels to return for each image, at most the number of classes.
        device: "cpu" or "cuda"; by default the GPU where there is one.

    Returns:
        For each image the `top_k` best labels, best first, as `{"label": str, "score": float}`; see [`label_scores`].

    Raises:
        InputError: An image cannot be used, or `model` cannot be loaded.
    """
    pictures = [read_image(path, channels=4) for path in images]
    processor, classifier = load_classifier(model, device)
    if getattr(processor, "channels", 3) != 4:
        pictures = [picture.convert("RGB") for picture in pictures]
    return [
        best_labels(classifier, processor(picture, return_tensors="pt").pixel_values, top_k) for picture in pictures
    ]


def best_labels(
    classifier: PreTrainedModel, pixel_values: torch.Tensor, top_k: int = 5
) -> list[dict[str, float | str]]:
    """The most probable labels of an image (1, channels, height, width), as `classify_images` returns them."""
    with torch.inference_mode():
        scores = label_scores(classifier, classifier(pixel_values.to(classifier.device)).logits[0])
    if not scores.isfinite().all():
        raise InputError(f"{classifier.name_or_path}: its scores are not finite. Convert or train it again.")
    # stable, so that the best of two equal scores does not depend on `top_k`
    best = scores.sort(descending=True, stable=True).indices[:top_k].tolist()
    return [{"label": classifier.config.id2label[index], "score": scores[index].item()} for index in best]


def label_scores(classifier: PreTrainedModel, logits: torch.Tensor) -> torch.Tensor:
    """Scores of the labels, as transformers' pipeline computes them from what the config says of the problem.

    Args:
        classifier: An image classifier.
        logits: (..., num_labels).

    Returns:
        (..., num_labels) in float32: a probability for each label where several may be true, or where there is just
        one; the logits of a regression; else probabilities that sum to 1.
    """
    problem, logits = classifier.config.problem_type, logits.float()
    if problem == "regression":
        return logits
    if problem == "multi_label_classification" or classifier.config.num_labels == 1:
        return logits.sigmoid()
    return logits.softmax(dim=-1)
