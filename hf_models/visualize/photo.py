"""What all pictures begin with: a photo, prepared for a model of one of the families."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from transformers import BaseImageProcessor, PreTrainedModel

from ..auto import FAMILIES
from ..errors import InputError
from ..inference.classify import load_classifier
from ..inference.images import read_image
from ..inference.names import DEFAULT, default_checkpoint
from ..modeling_base import HierarchicalPreTrainedModel
from .image_view import ImageView, check_size, prepare_image


def model_name(model: PreTrainedModel) -> str:
    """What pictures and messages call a model: where it was loaded from, without the path."""
    source = model.name_or_path
    return "the embedded checkpoint" if source == str(default_checkpoint()) else Path(source).name


def load_hierarchical(
    model: str | Path = DEFAULT, device: str | None = None
) -> tuple[BaseImageProcessor, HierarchicalPreTrainedModel]:
    """Load an image classifier of this package from a folder or the Hub, or "default" for the embedded checkpoint.

    Raises:
        InputError: It cannot be loaded, or is of another family.
    """
    processor, classifier = load_classifier(model, device)
    if not isinstance(classifier, HierarchicalPreTrainedModel):
        family, known = classifier.config.model_type, [config.model_type for config, _ in _hierarchical()]
        raise InputError(f"{model}: of the family {family}. Give {', '.join(known[:-1])} or {known[-1]}.")
    return processor, classifier


def families_with(feature: Callable[[PreTrainedModel], bool]) -> str:
    """Names of the families whose models have something to draw, as in "internimage and flash_internimage"."""
    with torch.device("meta"):  # the modules tell, without weights
        return " and ".join(config.model_type for config, model in _hierarchical() if feature(model(config())))


def _hierarchical() -> list[tuple[type, type]]:
    """Config and base model of each family that can be drawn."""
    return [(config, model) for config, model, *_ in FAMILIES if issubclass(model, HierarchicalPreTrainedModel)]


def load_photo(
    image: str | Path, model: str | Path, size: int | None, device: str | None = None
) -> tuple[Image.Image, ImageView, torch.Tensor, HierarchicalPreTrainedModel]:
    """Read an image file and prepare it for a model.

    Args:
        image: Path of the image.
        model: Folder or Hub id of an image classifier, or "default" for the embedded checkpoint.
        size: Side of the square that the model sees, instead of its processor's.
        device: "cpu" or "cuda"; by default the GPU where there is one.

    Returns:
        The photo, what the model sees of it, that as pixel values (1, 3, height, width), and the model.

    Raises:
        InputError: The image, the model or the size cannot be used.
    """
    photo = read_image(image)
    processor, classifier = load_hierarchical(model, device)
    if size is not None:
        check_size(size, classifier.config.output_stride)
    pixel_values, view = prepare_image(photo, processor, size)
    return photo, view, pixel_values.to(classifier.device), classifier
