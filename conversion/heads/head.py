"""Checkpoints of mmseg and mmdet: a family's backbone under a head of another kind.

A head's part of the conversion lies in the file named after it; here it is joined with the family's part.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel

from hf_models.errors import InputError
from hf_models.inference.tasks import model_class_of

from ..backbones.family import Family
from ..mapping.facts import Facts, Shapes
from ..mapping.key_map import KeyMap, Origin, Rule, rename

BACKBONE = "backbone."


@dataclass(frozen=True, kw_only=True)
class Head(ABC):
    """One head's part of the conversion.

    Args:
        model_types: Of the configs of its variants, which have the same weights; the first is its name in the zoo.
        title: What people call it.
        signature: A name that each checkpoint with this head has.
        rules: From original names, without those of the backbone, to the model's.
        backbone_prefix: Where the model has its backbone.
        facts_of_weights: What names and shapes show, as for a [`Family`].
        facts_of_config: The same facts as a config states them.
        fused: Ends of our names that hold several of the model's tensors, one below the other -> those tensors' ends.
        strips: Pattern of the number in our names that hold parts of one of the model's tensors, whose name has no
            number -> the axis along which the parts are joined.
        dropped: Pattern of an original name -> why such a tensor is not converted.
        constants: Tensors that the model stores and the original computes.
        counted: Fields of the config that count layers, each of which has tensors.
        first_stage: The first stage of the backbone whose feature map the head sees, from 0.
    """

    model_types: tuple[str, ...]
    title: str
    signature: str
    rules: tuple[Rule, ...]
    backbone_prefix: str = BACKBONE
    facts_of_weights: Callable[[Shapes], Facts]
    facts_of_config: Callable[[Any], Facts]
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strips: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    constants: Callable[[Any], dict[str, torch.Tensor]] = lambda config: {}
    counted: tuple[str, ...] = ()
    first_stage: int = 0
    takes_preprocessing: ClassVar[bool] = False

    @abstractmethod
    def check_original(self, original: dict) -> None:
        """Refuse what is not the original config of a network with such a head.

        Raises:
            InputError: It is not.
        """

    @abstractmethod
    def config_from_original(
        self, original: dict, backbone_config: PreTrainedConfig, image_statistics: dict[str, list[float]]
    ) -> PreTrainedConfig:
        """Our config, from the original's without its backbone.

        Args:
            original: The original's.
            backbone_config: That of the backbone.
            image_statistics: See [`Family`].
        """

    @abstractmethod
    def image_processor(self, config: PreTrainedConfig, stated: dict | None) -> BaseImageProcessor:
        """What prepares images for a checkpoint that the zoo does not know.

        Args:
            config: The config of the checkpoint.
            stated: What the original config says of it, if it does and `takes_preprocessing`.
        """

    @abstractmethod
    def assumed_preprocessing(self, config: PreTrainedConfig) -> str:
        """What `image_processor` takes for granted, in a few words."""


@dataclass(frozen=True)
class BackboneWithHead:
    """A family with a head on its backbone, a [`Convertible`]."""

    backbone: Family
    head: Head

    @property
    def title(self) -> str:
        return f"{self.head.title} on {self.backbone.title}"

    @property
    def network(self) -> tuple[str, ...]:
        return (*self.backbone.network, self.head.model_types[0])

    @property
    def takes_preprocessing(self) -> bool:
        return self.head.takes_preprocessing

    def model_class_of(self, config: PreTrainedConfig) -> type[PreTrainedModel]:
        return model_class_of(config)

    def key_map(self, names: Iterable[str]) -> KeyMap:
        """Where every tensor of the model comes from."""
        dropped = {name: why for name in names for end, why in self.head.dropped.items() if re.search(end, name)}
        kept = [name for name in names if name not in dropped]
        inside = self.backbone.rename(name.removeprefix(BACKBONE) for name in kept if name.startswith(BACKBONE))
        origins = {self.head.backbone_prefix + new: Origin((BACKBONE + old,)) for old, new in inside.items()}
        others = rename([name for name in kept if not name.startswith(BACKBONE)], self.head.rules)
        return KeyMap(origins | self._origins(others), dropped)

    def _origins(self, renamed: Mapping[str, str]) -> dict[str, Origin]:
        """Origins of a head's tensors, from its names, old -> new: of several in one, of strips, and of others."""
        origins = {}
        for old, new in sorted(renamed.items(), key=lambda names: (len(names[1]), names[1])):  # strips in their order
            if fused := next((end for end in self.head.fused if new.endswith(end)), None):
                ends = self.head.fused[fused]
                for index, end in enumerate(ends):
                    origins[new.removesuffix(fused) + end] = Origin((old,), part=(index, len(ends)))
            elif number := next((number for number in self.head.strips if re.search(number, new)), None):
                whole = re.sub(number, "", new)
                before = origins[whole].names if whole in origins else ()
                origins[whole] = Origin((*before, old), self.head.strips[number])
            else:
                origins[new] = Origin((old,))
        return origins

    def facts(self, shapes: Shapes) -> Facts:
        """What names and shapes show, by the model's names."""
        prefix = self.head.backbone_prefix
        inside = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        others = {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}
        return self._joined(self.backbone.facts_of_weights(inside), self.head.facts_of_weights(others))

    def facts_of_config(self, config: PreTrainedConfig) -> Facts:
        return self._joined(self.backbone.facts_of_config(config.backbone_config), self.head.facts_of_config(config))

    def config_from_original(self, original: dict, shown: Facts) -> PreTrainedConfig:
        """The config from the `model` dict of the original's config."""
        self.head.check_original(original)
        backbone = {
            name: v for name, v in original["backbone"].items() if name not in ("type", "pretrained", "init_cfg")
        }
        if backbone.get("num_classes", 0) is None:
            del backbone["num_classes"]
        *assistants, out_indices = _per_part(backbone.pop("out_indices", None))
        backbone_config = self.backbone.config_from_original(backbone, self._inside(shown))
        stages = stage_indices(backbone_config)
        seen = stages[self.head.first_stage :]
        if out_indices not in (None, seen) or any(indices != stages for indices in assistants):
            raise InputError(f"backbone.out_indices={out_indices!r} is not supported, only {seen} is.")
        backbone_config.out_features = [backbone_config.stage_names[1 + stage] for stage in seen]
        backbone_config.num_labels = PreTrainedConfig().num_labels  # the classes are the head's
        others = {
            name: v for name, v in original.items() if name not in ("type", "backbone", "family") and v is not None
        }
        return self.head.config_from_original(others, backbone_config, self.backbone.image_statistics(backbone_config))

    def adopt(self, config: PreTrainedConfig, shown: Facts) -> None:
        self.backbone.adopt(config.backbone_config, self._inside(shown))

    def constants(self, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
        """Tensors that no checkpoint holds."""
        return self.head.constants(config)

    def layer_counts(self, config: PreTrainedConfig) -> dict[str, Any]:
        """The fields of the config and of its backbone's that count layers."""
        own = {name: getattr(config, name) for name in self.head.counted}
        return own | self.backbone.layer_counts(config.backbone_config)

    def image_processor(self, config: PreTrainedConfig, upstream: dict | None) -> BaseImageProcessor:
        return self.head.image_processor(config, self.image_statistics(config) | (upstream or {}))

    def assumed_preprocessing(self, config: PreTrainedConfig) -> str:
        return self.head.assumed_preprocessing(config)

    def image_statistics(self, config: PreTrainedConfig) -> dict[str, list[float]]:
        return self.backbone.image_statistics(config.backbone_config)

    @staticmethod
    def _inside(shown: Facts) -> Facts:
        """The facts of the backbone, by the names that it has by itself."""
        return {name.removeprefix(BACKBONE): value for name, value in shown.items() if name.startswith(BACKBONE)}

    @staticmethod
    def _joined(inside: Facts, others: Facts) -> Facts:
        # the classifier is the head's
        return {f"{BACKBONE}{name}": value for name, value in inside.items() if name != "num_classes"} | others


def stage_indices(backbone_config: PreTrainedConfig) -> list[int]:
    """All stages of a backbone as the originals count them: from 0, without the stem."""
    return list(range(len(backbone_config.stage_names) - 1))


def _per_part(out_indices: list | None) -> list[list | None]:
    """The stages seen of each part of a composite backbone, last of the one that the head sees; or of the only one."""
    return out_indices if out_indices and isinstance(out_indices[0], list) else [out_indices]
