"""Classify images with any checkpoint; by default with the small one that the package carries."""

from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from transformers import AutoImageProcessor, AutoModelForImageClassification

from .errors import InputError

MAX_ASPECT_RATIO = 100


def default_checkpoint() -> Path:
    """Folder of the embedded checkpoint: a small SMT trained on 202 classes of ImageNet at 64 pixels."""
    return Path(__file__).parent / "default"


def read_image(path: str | Path) -> Image.Image:
    """Read an image file as RGB.

    Raises:
        InputError: The file is missing, no image, truncated, has 16 bits per channel or an extreme aspect ratio.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (UnidentifiedImageError, IsADirectoryError):
        raise InputError(f"{path}: not an image that Pillow can read.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read completely ({error}). Fetch the file again.") from None
    if image.mode.startswith(("I", "F")):
        raise InputError(f"{path}: more than 8 bits per channel (mode {image.mode}). Convert to 8-bit first.")
    ratio = max(image.size) / min(image.size)
    if ratio > MAX_ASPECT_RATIO:
        raise InputError(f"{path}: aspect ratio {ratio:.0f}:1 exceeds {MAX_ASPECT_RATIO}:1. Crop the image.")
    return image.convert("RGB")


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
    source = default_checkpoint() if model is None else model
    try:
        processor = AutoImageProcessor.from_pretrained(source)
        classifier = AutoModelForImageClassification.from_pretrained(source, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{source}: cannot be loaded as an image classifier ({reason})") from error
    results = []
    for picture in pictures:
        with torch.inference_mode():
            scores = classifier(**processor(picture, return_tensors="pt")).logits[0].softmax(dim=-1)
        best = scores.topk(min(top_k, scores.numel()))
        labels = [classifier.config.id2label[index] for index in best.indices.tolist()]
        results.append(
            [{"label": label, "score": score} for label, score in zip(labels, best.values.tolist(), strict=True)]
        )
    return results
