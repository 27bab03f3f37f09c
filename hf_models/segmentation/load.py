"""Loading a segmentation model, and the recipe of its authors' test that its config holds."""

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    PreTrainedModel,
    UperNetConfig,
)

from ..errors import InputError, reason
from ..inference.loading import SEGMENTER, load_weights, loading
from ..inference.names import model_folder
from ..inference.tasks import check_task
from ..modeling_lean_upernet import UperNetForSemanticSegmentation
from ..zoo.segmentation_recipe import SegmentationRecipe


def load_segmenter(
    folder: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, SegmentationRecipe]:
    """Load a segmentation model, of this package or of transformers, and the recipe that its config holds.

    Args:
        folder: Folder or Hub id; a model without a recipe gets the usual one for ADE20K.
        dtype: Type of the weights.

    Raises:
        InputError: It cannot be loaded as a segmentation model.
    """
    model = load_weights(folder, segmenter_class(folder), dtype)
    return model, recipe_of(model)


def segmenter_class(folder: str | Path) -> type:
    """The class that loads a segmentation model; an [`InputError`] where there is no config of such a model.

    It is an Auto class, or for transformers' UperNet the one that takes less memory.
    """
    with loading(folder, SEGMENTER):
        config = AutoConfig.from_pretrained(model_folder(folder), trust_remote_code=False)
    check_task(folder, config, "image-segmentation")
    if type(config) is UperNetConfig:
        return UperNetForSemanticSegmentation
    universal = type(config) in AutoModelForUniversalSegmentation._model_mapping
    return AutoModelForUniversalSegmentation if universal else AutoModelForSemanticSegmentation


def recipe_of(model: PreTrainedModel) -> SegmentationRecipe:
    """The recipe that a model's config holds, or the usual one for ADE20K.

    Raises:
        InputError: What the config holds is none.
    """
    try:
        return SegmentationRecipe.from_dict(getattr(model.config, "segmentation_recipe", None) or {})
    except (TypeError, ValueError) as error:
        raise InputError(f"{model.name_or_path}: {reason(error)}. Correct its config.") from error
