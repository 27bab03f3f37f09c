"""A model without weights, and a forward pass of it, on PyTorch's meta device: tensors there have only shapes."""

from pathlib import Path

import torch
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.backbone_utils import BackboneMixin

from ..errors import InputError, reason
from ..inference.loading import loading
from ..inference.names import model_folder
from ..inference.tasks import auto_class_of
from ..zoo import published_as
from .gpu_operators import GpuOperators
from .saved_tensors import activation_bytes

# their losses match what is found with what is there, which takes numbers
MATCHING = (AutoModelForObjectDetection, AutoModelForUniversalSegmentation)


def config_of(model: str | Path) -> PreTrainedConfig:
    """The config of a model that a user names: a published checkpoint, a folder, an id on the Hub or "default".

    Raises:
        InputError: There is no such model.
    """
    if not Path(model).is_dir() and (published := published_as(str(model))):
        return published.config()
    folder = model_folder(model)
    with loading(folder, "a model"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The model of a config in float32, to be trained; it takes no memory.

    Raises:
        InputError: There is no such model of images.
    """
    backbone = AutoBackbone._model_mapping.get(type(config), None)
    auto_class = auto_class_of(config)
    if auto_class is None or (backbone and config.architectures == [backbone.__name__]):
        auto_class = AutoBackbone
    try:
        with torch.device("meta"):
            return auto_class.from_config(config, dtype=torch.float32).train()
    except ValueError as error:  # the Auto class has no such model
        raise InputError(f"{config.model_type}: no classifier, segmenter, detector or backbone of images.") from error


def trained_part(model: PreTrainedModel) -> PreTrainedModel:
    """What of a model can run without numbers: all of it, or its backbone.

    Raises:
        InputError: Neither can.
    """
    if not any(_is_of(model, auto_class) for auto_class in MATCHING):
        return model
    backbone = next((module for module in model.modules() if isinstance(module, BackboneMixin)), None)
    if backbone is None:
        raise InputError(f"{type(model).__name__}: has no backbone that can be counted without its images.")
    return backbone


def kept_by_forward(
    model: PreTrainedModel, batch_size: int, image_size: int, autocast: torch.dtype | None, checkpointing: bool
) -> tuple[int, int]:
    """Bytes of what a forward pass with its loss keeps for the backward pass, at most.

    Args:
        model: Of [`trained_part`]; its weights have the type of the images.
        batch_size: Images of the step.
        image_size: Pixels of a side.
        autocast: The type that autocast computes in; `None` for none.
        checkpointing: See [`activation_bytes`].

    Returns:
        Of activations, and of the copies of weights that autocast makes.

    Raises:
        InputError: The model takes no such batch.
    """
    operators = GpuOperators(model, autocast)
    weights = [*model.parameters(), *model.buffers(), *operators.copies.values()]
    try:
        with operators:
            _, most = activation_bytes(model, _batch(model, batch_size, image_size), weights, checkpointing)
    except (RuntimeError, ValueError) as error:
        batch = f"{batch_size} x {image_size} x {image_size} pixels"
        advice = "Pass another --batch-size or --image-size"
        raise InputError(f"{batch}: the model is not trained on such a batch ({reason(error)}). {advice}.") from error
    return most, sum(copy.nbytes for copy in operators.copies.values())


def _batch(model: PreTrainedModel, batch_size: int, image_size: int) -> dict[str, torch.Tensor]:
    """Images (batch_size, channels, image_size, image_size), and labels where the model's task has some."""
    config, size = model.config, (image_size, image_size)
    channels = getattr(config, "backbone_config", config).num_channels
    with torch.device("meta"):
        batch = {"pixel_values": torch.empty(batch_size, channels, *size, dtype=model.dtype)}
        if _is_of(model, AutoModelForSemanticSegmentation):
            batch["labels"] = torch.empty(batch_size, *size, dtype=torch.long)
        elif _is_of(model, AutoModelForImageClassification) and config.num_labels:
            batch["labels"] = torch.empty(batch_size, dtype=torch.long)
    return batch


def _is_of(model: PreTrainedModel, auto_class: type) -> bool:
    """Whether the Auto class builds such models."""
    return auto_class._model_mapping.get(type(model.config), None) is type(model)
