"""Classify images with any checkpoint; by default with the small one that the package carries."""

from pathlib import Path
from typing import BinaryIO

import torch
from PIL import Image, UnidentifiedImageError
from transformers import AutoImageProcessor, AutoModelForImageClassification, BaseImageProcessor, PreTrainedModel
from transformers.utils import logging

from .errors import InputError

MAX_ASPECT_RATIO = 100


def default_checkpoint() -> Path:
    """Folder of the embedded checkpoint: a small SMT trained on 202 classes of ImageNet at 64 pixels."""
    return Path(__file__).parent / "default"


def read_image(file: str | Path | BinaryIO, name: str | None = None) -> Image.Image:
    """Read an image file as RGB.

    Args:
        file: A path or an open file.
        name: What errors call it; by default `file`.

    Raises:
        InputError: The file is missing, no image, truncated, has 16 bits per channel or an extreme aspect ratio.
    """
    path = name or file
    try:
        with Image.open(file) as image:
            image.load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (UnidentifiedImageError, IsADirectoryError):
        raise InputError(f"{path}: not an image that Pillow can read.") from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises these too where a file is damaged
        raise InputError(f"{path}: cannot be read completely ({error}). Fetch the file again.") from None
    if image.mode.startswith(("I", "F")):
        raise InputError(f"{path}: more than 8 bits per channel (mode {image.mode}). Convert to 8-bit first.")
    ratio = max(image.size) / min(image.size)
    if ratio > MAX_ASPECT_RATIO:
        raise InputError(f"{path}: aspect ratio {ratio:.0f}:1 exceeds {MAX_ASPECT_RATIO}:1. Crop the image.")
    return image.convert("RGB")


def load_model(
    source: str | Path, auto_class: type, dtype: torch.dtype = torch.float32
) -> tuple[BaseImageProcessor, PreTrainedModel]:
    """Load an image processor and a model for inference.

    Args:
        source: Folder or Hub id.
        auto_class: Such as AutoModelForImageClassification.

    Raises:
        InputError: There is no such model in `source`, or a part of its weights is missing.
    """
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of the weights in memory: it says nothing, and fills logs
    try:
        processor = AutoImageProcessor.from_pretrained(source)
        model, info = auto_class.from_pretrained(source, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError) as error:
        kind = "an image classifier" if auto_class is AutoModelForImageClassification else "a segmentation model"
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{source}: cannot be loaded as {kind} ({reason})") from error
    finally:
        if shown:
            logging.enable_progress_bar()
    if missing := sorted(info["missing_keys"]):
        raise InputError(
            f"{source}: {len(missing)} weights are missing, such as {missing[0]}. Convert or train it first."
        )
    return processor, model.eval()


def load_classifier(model: str | Path | None) -> tuple[BaseImageProcessor, PreTrainedModel]:
    """Load an image classifier from a folder or the Hub; `None` for the embedded checkpoint.

    Raises:
        InputError: `model` cannot be loaded.
    """
    return load_model(default_checkpoint() if model is None else model, AutoModelForImageClassification)


def classify_images(
    images: list[str | Path], model: str | Path | None = None, top_k: int = 5
) -> list[list[dict[str, float | str]]]:
    """Classify image files.

    Args:
        images: Paths of the images.
        model: Folder or Hub id of an image classifier; `None` for the embedded checkpoint.
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
    best = scores.topk(min(top_k, scores.numel()))
    labels = [classifier.config.id2label[index] for index in best.indices.tolist()]
    return [{"label": label, "score": score} for label, score in zip(labels, best.values.tolist(), strict=True)]
