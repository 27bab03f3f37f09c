"""The backbone of a driving network, which its files call `img_backbone`: what it becomes by itself.

Source: the configs in https://github.com/OpenGVLab/InternImage/tree/master/autonomous_driving, for mmdet3d.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from transformers import PreTrainedConfig
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from hf_models.errors import InputError
from hf_models.image_processing_imagenet import ImageNetImageProcessor

from ..mapping.facts import Facts
from .family import Family

PART = "img_backbone"


@dataclass(frozen=True)
class CameraBackbone(Family):
    """A family's backbone out of a driving network; what is not said here is as in [`Family`]."""

    @classmethod
    def of(cls, family: Family) -> "CameraBackbone":
        """That of a family."""
        alone = family.alone()
        given = {field.name: getattr(alone, field.name) for field in fields(alone)}
        return cls(**given | {"config_from_original": partial(_config_from_original, family.config_from_original)})

    @property
    def title(self) -> str:
        return f"{self.model_type} in a driving network"

    @property
    def network(self) -> tuple[str, ...]:
        return (self.model_type, PART)

    def image_processor(self, config: PreTrainedConfig, upstream: dict | None) -> ImageNetImageProcessor:
        """One that normalises images and leaves their size."""
        statistics = {"image_mean": list(IMAGENET_DEFAULT_MEAN), "image_std": list(IMAGENET_DEFAULT_STD)}
        statistics |= self.image_statistics(config)
        return ImageNetImageProcessor(do_resize=False, do_center_crop=False, **statistics)

    def assumed_preprocessing(self, config: PreTrainedConfig) -> str:
        return "images keep their size"


def _config_from_original(
    config_from_arguments: Callable[[dict, Facts], PreTrainedConfig], original: dict, shown: Facts
) -> PreTrainedConfig:
    """The config from the arguments of the backbone, or from the `model` dict of mmdet3d around them."""
    given = {
        name: value for name, value in _section(original).items() if name not in ("type", "pretrained", "init_cfg")
    }
    indices = given.pop("out_indices", None)
    config = config_from_arguments(given, shown)
    config.num_labels = PreTrainedConfig().num_labels  # there is no classifier
    stages = config.stage_names[1:]
    known = list(range(len(stages)))
    if indices not in (None, *(known[first:] for first in known)):
        raise InputError(f"out_indices={indices!r} is not supported, only {known} or the last of them are.")
    config.out_features = stages if indices is None else [stages[index] for index in indices]
    return config


def _section(original: dict[str, Any]) -> dict[str, Any]:
    """The dict of the backbone in that of a network or of its encoder; `original` where there is none."""
    inside = [original, *(value for value in original.values() if isinstance(value, dict))]
    return next((section[PART] for section in inside if isinstance(section.get(PART), dict)), original)
