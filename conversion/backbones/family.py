"""A family's part of the conversion; with its classifier it is what a checkpoint can be converted to."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import AutoBackbone, PreTrainedConfig, PreTrainedModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from hf_models.image_processing_imagenet import ImageNetImageProcessor

from ..mapping.facts import Facts, Shapes
from ..mapping.key_map import KeyMap, Origin, Rule, rename


@dataclass(frozen=True)
class Family:
    """One family's part of the conversion, a [`Convertible`]; each lives in the file named after its `model_type`.

    Args:
        model_class: The class with a classifier that a checkpoint becomes.
        signature: A name that each original checkpoint of this family has, and no other family's.
        rules: From original names to ours, without the base model's prefix.
        config_from_original: Builds our config from the original constructor's arguments. The second argument holds
            the facts that the weights show, for what the constructor leaves to them.
        facts_of_weights: What names and shapes show (our names, no prefix), in the original's words. A fact that the
            checkpoint does not show is left out or `None`.
        facts_of_config: The same facts as a config states them.
        adopt: Changes a config to the form that the weights are in, where one network has several.
        aliases: First part of names in republished files -> that of the original names, which are not there then.
        heads: First parts of the names (ours) that lie outside the base model.
        counted: Fields of the config that count layers, each of which has tensors.
    """

    model_class: type[PreTrainedModel]
    signature: str
    rules: tuple[Rule, ...]
    config_from_original: Callable[[dict, Facts], PreTrainedConfig]
    facts_of_weights: Callable[[Shapes], Facts]
    facts_of_config: Callable[[Any], Facts]
    adopt: Callable[[Any, Facts], None] = lambda config, facts: None
    aliases: Mapping[str, str] = field(default_factory=dict)
    heads: tuple[str, ...] = ("classifier.",)
    counted: tuple[str, ...] = ("depths",)

    @property
    def title(self) -> str:
        return self.model_type

    @property
    def network(self) -> tuple[str, ...]:
        return (self.model_type,)

    @property
    def model_type(self) -> str:
        return self.model_class.config_class.model_type

    def alone(self) -> "Family":
        """The same without a classifier: what a checkpoint's backbone becomes if nothing else of it is wanted."""
        return replace(self, model_class=AutoBackbone._model_mapping[self.model_class.config_class], heads=("",))

    @property
    def takes_preprocessing(self) -> bool:
        return False  # what is beside a classifier is upstream's

    def model_class_of(self, config: PreTrainedConfig) -> type[PreTrainedModel]:
        return self.model_class

    def original_names(self, names: Mapping[str, str]) -> dict[str, str]:
        """Names of a classifier, new -> given, with those of republished files as the original has them."""
        for alias, own in self.aliases.items():
            if not any(new.startswith(own) for new in names):
                names = {re.sub(f"^{re.escape(alias)}", own, new): given for new, given in names.items()}
        return dict(names)

    def rename(self, names: Iterable[str]) -> dict[str, str]:
        """Names of the original -> names inside the base model, those of the heads as they are."""
        return rename(names, self.rules)

    def full_name(self, name: str) -> str:
        """The name inside `model_class`."""
        return name if name.startswith(self.heads) else f"{self.model_class.base_model_prefix}.{name}"

    def key_map(self, names: Iterable[str]) -> KeyMap:
        """Where every tensor of `model_class` comes from."""
        return KeyMap({self.full_name(new): Origin((old,)) for old, new in self.rename(names).items()})

    def facts(self, shapes: Shapes) -> Facts:
        """What names and shapes show, by the names of `model_class`."""
        prefix = f"{self.model_class.base_model_prefix}."
        return self.facts_of_weights({name.removeprefix(prefix): shape for name, shape in shapes.items()})

    def constants(self, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
        """Tensors that no checkpoint holds: none."""
        return {}

    def layer_counts(self, config: PreTrainedConfig) -> dict[str, Any]:
        """The fields of a config that count layers."""
        return {name: getattr(config, name) for name in self.counted}

    def image_processor(self, config: PreTrainedConfig, upstream: dict | None) -> ImageNetImageProcessor:
        """Upstream's, or the usual one at the config's image size."""
        upstream = upstream or {}
        return ImageNetImageProcessor(
            size={"shortest_edge": upstream.get("size", config.image_size)},
            crop_size=upstream.get("crop_size", config.image_size),
            resample=upstream.get("resample", 3),  # bicubic
            image_mean=upstream.get("image_mean", list(IMAGENET_DEFAULT_MEAN)),
            image_std=upstream.get("image_std", list(IMAGENET_DEFAULT_STD)),
        )

    def assumed_preprocessing(self, config: PreTrainedConfig) -> str:
        return f"short side {config.image_size} pixels, central square"
