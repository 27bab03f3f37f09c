"""Classify images with any checkpoint; by default with the small one that the package carries."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image, UnidentifiedImageError
from transformers import AutoImageProcessor, AutoModelForImageClassification, BaseImageProcessor, PreTrainedModel
from transformers.utils import logging

from ..errors import InputError, reason
from .hub_requests import limited_requests
from .input_files import check_path
from .weight_files import read_index

SEGMENTER = "a segmentation model"
MAX_ASPECT_RATIO = 100
# what photos come in; Pillow knows others, one of which runs a program on the file
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def default_checkpoint() -> Path:
    """Folder of the embedded checkpoint: a small SMT trained on 202 classes of ImageNet at 64 pixels."""
    return Path(__file__).parents[1] / "default"


def read_image(file: str | Path | BinaryIO, name: str | None = None) -> Image.Image:
    """Read an image file as RGB.

    Args:
        file: A path or an open file.
        name: What errors call it; by default `file`.

    Raises:
        InputError: The file is missing, no image, truncated or huge, has 16 bits per channel or an extreme aspect
            ratio.
    """
    path = name or file
    try:
        with Image.open(file, formats=FORMATS) as image:
            image.load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (UnidentifiedImageError, IsADirectoryError):
        raise InputError(f"{path}: not an image in a format of {', '.join(FORMATS)}.") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels. Make it smaller.") from None
    except Exception as error:  # Pillow's formats raise anything where a file is damaged
        raise InputError(f"{path}: cannot be read completely ({reason(error)}). Fetch the file again.") from None
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
    with loading(source, "an image classifier" if auto_class is AutoModelForImageClassification else SEGMENTER):
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    return processor, load_weights(source, auto_class, dtype)


def load_weights(source: str | Path, auto_class: type, dtype: torch.dtype) -> PreTrainedModel:
    """The model alone; see [`load_model`]."""
    with loading(source, "an image classifier" if auto_class is AutoModelForImageClassification else SEGMENTER):
        _check_indexes(source)
        model, info = auto_class.from_pretrained(
            source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False
        )
    for what, names in (("missing", info["missing_keys"]), ("of another shape", info["mismatched_keys"])):
        if names := sorted(map(str, names)):
            raise InputError(
                f"{source}: {len(names)} weights are {what}, such as {names[0]}. Convert or train it first."
            )
    if list(model.config.id2label) != list(range(model.config.num_labels)):
        raise InputError(f"{source}: id2label of its config does not name the classes 0, 1, 2, .... Correct it.")
    return model.eval()


@contextmanager
def loading(source: str | Path, kind: str) -> Iterator[None]:
    """Turn what transformers raises into an [`InputError`], without its reports and progress bars.

    What is called inside must pass `trust_remote_code=False`: code that comes with a model never runs, and nobody is
    asked whether it may.

    Args:
        source: Folder or Hub id.
        kind: What is loaded.
    """
    check_path(source)
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with limited_requests():
            yield
    except InputError:
        raise
    except Exception as error:  # the library checks what it reads only in part
        # it follows its first line with many of advice; a config's error says what on its second line
        why = reason(error) if isinstance(error, StrictDataclassError) else str(error).strip().partition("\n")[0]
        if named := re.search(r"GLOBAL (\S+)", str(error)):  # PyTorch's first line is how to run it anyway
            why = f"its weights are a pickle that would call {named[1]}"
        advice = "" if Path(source).is_dir() else " Check the name, and the connection to the Hub."
        raise InputError(f"{source}: cannot be loaded as {kind} ({why or type(error).__name__}).{advice}") from error
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _check_indexes(source: str | Path) -> None:
    """Refuse a folder whose index of weights names files outside of it: transformers would load them."""
    for index in Path(source).glob("*.index.json"):
        read_index(Path(source), index.name)


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
    if not scores.isfinite().all():
        raise InputError(f"{classifier.name_or_path}: its scores are not finite. Convert or train it again.")
    best = scores.topk(min(top_k, scores.numel()))
    labels = [classifier.config.id2label[index] for index in best.indices.tolist()]
    return [{"label": label, "score": score} for label, score in zip(labels, best.values.tolist(), strict=True)]
