"""Segmentation checkpoints of mmseg: a family's backbone under one of three heads.

A head's part of the conversion lives in the file named after it; this one joins it with the family's part.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from hf_models.errors import InputError
from hf_models.zoo.segmentation_recipe import SegmentationRecipe

from ..backbones.family import Facts, Family, Shapes
from ..key_map import KeyMap, Rule, rename

BACKBONE = "backbone."
# what only training looks at
TRAINING = re.compile(
    r"(^|\.)(loss_\w+|train_cfg|test_cfg|init_cfg|pretrained|sampler|dropout_ratio|requires_grad)(\.|$)"
)
SEGMENTERS = ("EncoderDecoder", "EncoderDecoderMask2Former", "EncoderDecoderMask2FormerAug")


@dataclass(frozen=True)
class Head:
    """One head's part of the conversion.

    Args:
        model_class: What a checkpoint with this head becomes.
        title: What people call it.
        signature: A name that each checkpoint with this head has.
        rules: From original names, without those of the backbone, to those of `model_class`.
        backbone_prefix: Where `model_class` has its backbone.
        config_from_original: Builds the config from mmseg's `model` dict, flat (`"decode_head.channels"`) and without
            the backbone, and from the arguments that every config takes: `backbone_config` among them.
        facts_of_weights: What names and shapes show, as for a [`Family`].
        facts_of_config: The same facts as a config states them.
        fused: Ends of our names that hold several of the model's tensors, one below the other -> those tensors' ends.
        dropped: Pattern of an original name -> why such a tensor is not converted.
        constants: Tensors that the model stores and the original computes.
    """

    model_class: type[PreTrainedModel]
    title: str
    signature: str
    rules: tuple[Rule, ...]
    backbone_prefix: str
    config_from_original: Callable[[dict, dict], PreTrainedConfig]
    facts_of_weights: Callable[[Shapes], Facts]
    facts_of_config: Callable[[Any], Facts]
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    constants: Callable[[Any], dict[str, torch.Tensor]] = lambda config: {}


@dataclass(frozen=True)
class SegmentationFamily:
    """A family with a head on its backbone; the converter uses it as it uses a [`Family`]."""

    backbone: Family
    head: Head

    task = "image-segmentation"

    @property
    def model_class(self) -> type[PreTrainedModel]:
        return self.head.model_class

    @property
    def model_type(self) -> str:
        return self.backbone.model_type

    @property
    def title(self) -> str:
        return f"{self.head.title} on {self.model_type}"

    def key_map(self, names) -> KeyMap:
        """Where every tensor of the model comes from."""
        dropped = {name: why for name in names for end, why in self.head.dropped.items() if re.search(end, name)}
        kept = [name for name in names if name not in dropped]
        inside = self.backbone.rename(name.removeprefix(BACKBONE) for name in kept if name.startswith(BACKBONE))
        source_of = {self.head.backbone_prefix + new: BACKBONE + old for old, new in inside.items()}
        parts = {}
        for old, new in rename([name for name in kept if not name.startswith(BACKBONE)], self.head.rules).items():
            fused = next((end for end in self.head.fused if new.endswith(end)), None)
            if fused is None:
                source_of[new] = old
                continue
            ends = self.head.fused[fused]
            for index, end in enumerate(ends):
                source_of[new.removesuffix(fused) + end] = old
                parts[new.removesuffix(fused) + end] = (index, len(ends))
        return KeyMap(source_of, parts, dropped)

    def facts(self, shapes: Shapes) -> Facts:
        """What names and shapes show, by the model's names."""
        prefix = self.head.backbone_prefix
        inside = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        others = {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}
        return self._joined(self.backbone.facts_of_weights(inside), self.head.facts_of_weights(others))

    def facts_of_config(self, config: PreTrainedConfig) -> Facts:
        return self._joined(self.backbone.facts_of_config(config.backbone_config), self.head.facts_of_config(config))

    def config_from_original(self, original: dict, shown: Facts) -> PreTrainedConfig:
        """The config from mmseg's `model` dict."""
        if not isinstance(original.get("backbone"), dict) or not isinstance(original.get("decode_head"), dict):
            raise InputError("backbone or decode_head is missing. Give the model dict of the mmseg config.")
        if original.get("type", SEGMENTERS[0]) not in SEGMENTERS:
            raise InputError(f"type={original['type']!r} is not supported, only {', '.join(SEGMENTERS)} are.")
        backbone = {
            name: v for name, v in original["backbone"].items() if name not in ("type", "pretrained", "init_cfg")
        }
        if backbone.get("num_classes", 0) is None:
            del backbone["num_classes"]
        out_indices = backbone.pop("out_indices", None)
        inside = {name.removeprefix(BACKBONE): value for name, value in shown.items() if name.startswith(BACKBONE)}
        backbone_config = self.backbone.config_from_original(backbone, inside)
        backbone_config.out_features = backbone_config.stage_names[1:]
        if out_indices not in (None, stages := all_stages(backbone_config), tuple(stages)):
            raise InputError(f"backbone.out_indices={out_indices!r} is not supported, only {stages} is.")
        backbone_config.num_labels = PreTrainedConfig().num_labels  # the classes are the head's
        others = {
            name: v for name, v in original.items() if name not in ("type", "backbone", "family") and v is not None
        }
        recipe = _recipe(original.get("test_cfg"))
        shared = {"backbone_config": backbone_config, "segmentation_recipe": recipe.to_dict()}
        return self.head.config_from_original(flat(others), shared)

    def adopt(self, config: PreTrainedConfig, shown: Facts) -> None:
        inside = {name.removeprefix(BACKBONE): value for name, value in shown.items()}
        self.backbone.adopt(config.backbone_config, inside)

    def constants(self, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
        """Tensors that no checkpoint holds."""
        return self.head.constants(config)

    def is_published_as(self, model) -> bool:
        """Whether an entry of the zoo is of this family, with this head."""
        return model.task == self.task and (model.family, model.head) == (self.model_type, self.head_name)

    @property
    def head_name(self) -> str:
        return self.head.model_class.config_class.model_type.removeprefix("aligned_")

    @staticmethod
    def _joined(inside: Facts, others: Facts) -> Facts:
        # the classifier is the head's
        return {f"{BACKBONE}{name}": value for name, value in inside.items() if name != "num_classes"} | others


def all_stages(backbone: PreTrainedConfig) -> list[int]:
    """The stages of a backbone as mmseg counts them, from 0: every head takes all."""
    return list(range(backbone.num_stages))


def flat(section: dict, path: str = "") -> dict[str, Any]:
    """A nested dict with dotted names, without what only training looks at."""
    found = {}
    for name, value in section.items():
        name = f"{path}{name}"
        if TRAINING.search(name):
            continue
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def _recipe(test_cfg: dict | None) -> SegmentationRecipe:
    if not isinstance(test_cfg, dict | None):
        raise InputError(f"test_cfg={test_cfg!r} is not supported: it is the dict of the mmseg config.")
    test_cfg = test_cfg or {}
    mode = test_cfg.get("mode", "whole")
    if mode == "whole":
        return SegmentationRecipe()
    if mode != "slide" or not all(isinstance(test_cfg.get(name), list) for name in ("crop_size", "stride")):
        raise InputError(f"test_cfg={test_cfg!r} is not supported: mode is whole, or slide with crop_size and stride.")
    return SegmentationRecipe(crop_size=tuple(test_cfg["crop_size"]), stride=tuple(test_cfg["stride"]))
