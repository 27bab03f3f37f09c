"""What a checkpoint can be converted to, as the converter sees it."""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel

from .facts import Facts, Shapes
from .key_map import KeyMap


class Convertible(Protocol):
    """A backbone with a classifier, or with another head.

    Plan, conversion, verification and report know families, heads and tasks through this only.
    """

    @property
    def title(self) -> str:
        """What people call it."""

    @property
    def network(self) -> tuple[str, ...]:
        """The family, and the head where it is not a linear classifier: as [`PublishedCheckpoint`] has it."""

    @property
    def takes_preprocessing(self) -> bool:
        """Whether `image_processor` follows what a config of the original says of the preparation of images."""

    def model_class_of(self, config: PreTrainedConfig) -> type[PreTrainedModel]:
        """What a checkpoint with this config becomes."""

    def key_map(self, names: Iterable[str]) -> KeyMap:
        """Where every tensor of the model comes from, out of the names of a checkpoint.

        Raises:
            InputError: The names are another network's.
        """

    def facts(self, shapes: Shapes) -> Facts:
        """What the tensors show, by the model's names, in the original's words."""

    def facts_of_config(self, config: PreTrainedConfig) -> Facts:
        """The same facts as a config states them."""

    def config_from_original(self, original: dict, shown: Facts) -> PreTrainedConfig:
        """Our config, from what the original code was configured with and the facts that the weights show.

        Raises:
            InputError: Something in it is missing, unknown or not supported.
        """

    def adopt(self, config: PreTrainedConfig, shown: Facts) -> None:
        """Change a config to the form that the weights are in, where one network has several."""

    def constants(self, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
        """Tensors of the model that no checkpoint holds."""

    def layer_counts(self, config: PreTrainedConfig) -> dict[str, Any]:
        """The fields of a config, numbers or lists of them, that count layers: each layer has tensors of its own."""

    def image_processor(self, config: PreTrainedConfig, upstream: dict | None) -> BaseImageProcessor:
        """What prepares images for a checkpoint that the zoo does not know.

        Args:
            config: The config of the checkpoint.
            upstream: The preprocessor_config.json beside the original, or what a config of the original says, in the
                words of image processors.
        """

    def assumed_preprocessing(self, config: PreTrainedConfig) -> str:
        """What `image_processor` takes for granted without `upstream`, in a few words."""
