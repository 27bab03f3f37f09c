"""Which families and heads can be converted, and which of them a checkpoint or a config is of."""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec

from transformers import PreTrainedConfig

from hf_models import auto
from hf_models.errors import InputError

from .backbones.camera import PART, CameraBackbone
from .backbones.family import Family
from .heads import HEADS
from .heads.head import BACKBONE, BackboneWithHead
from .mapping.convertible import Convertible
from .reading.checkpoint import Checkpoint
from .reading.containers import some
from .reading.names import inside, owner_of

PARTS = f"{__package__}.backbones"
# a registered family's part lies in the file named after its model_type; one without originals has none
FAMILIES: dict[str, Family] = {
    config.model_type: import_module(f"{PARTS}.{config.model_type}").FAMILY
    for config, *_ in [*auto.FAMILIES, *auto.BACKBONES]
    if find_spec(f"{PARTS}.{config.model_type}")
}
ANY_HEAD = ("decode_head.", "neck.", "rpn_head.", "roi_head.", "bbox_head.")


def recognise(checkpoint: Checkpoint, part: str | None = None) -> tuple[Convertible, Checkpoint]:
    """The family by whose signature a checkpoint can be told, with the head that it has; and its tensors by its names.

    Args:
        checkpoint: The opened checkpoint.
        part: `"img_backbone"` for that of a driving network, which is all of it that can be converted.

    Raises:
        InputError: It is none of them, or holds several sets of weights.
    """
    given = checkpoint.source.given
    if part == PART:
        return _camera_backbone(checkpoint)
    for family in _families():
        found = owner_of(given, checkpoint.tensors, family.signature, checkpoint.chosen)
        if found is None:
            continue
        owner, kind = found
        if owner.endswith(f"{PART}."):
            raise InputError(
                f"{given}: a driving network, of which only the backbone can be converted. Pass --part {PART}."
            )
        names, dropped = inside(checkpoint.tensors, owner, ANY_HEAD)
        weights = kind if kind == "ema" else checkpoint.weights
        if f"{BACKBONE}{family.signature}" not in names:
            return family, checkpoint.renamed(family.original_names(names), dropped, weights=weights)
        checkpoint = checkpoint.renamed(names, dropped, weights=weights)
        if head := next((head for head in HEADS if head.signature in names), None):
            return BackboneWithHead(family, head), checkpoint
        raise InputError(
            f"{given}: {family.model_type} with a head that cannot be converted. "
            f"Those that can are: {', '.join(head.title for head in HEADS)}."
        )
    raise InputError(
        f"{given}: not a checkpoint of {', '.join(FAMILIES)}{_looks_like(checkpoint.tensors)}. "
        f"Its first keys are {some(checkpoint.tensors)}."
    )


def _families() -> list[Family]:
    """The longest signature first: that of a composite backbone ends in that of its parts."""
    return sorted(FAMILIES.values(), key=lambda family: -len(family.signature))


def _camera_backbone(checkpoint: Checkpoint) -> tuple[CameraBackbone, Checkpoint]:
    """The backbone of a driving network, and its tensors by the names inside it."""
    given = checkpoint.source.given
    for family in _families():
        if found := owner_of(given, checkpoint.tensors, f"{PART}.{family.signature}", checkpoint.chosen):
            owner, kind = found
            prefix = f"{owner}{PART}."
            names = {name.removeprefix(prefix): name for name in checkpoint.tensors if name.startswith(prefix)}
            others = sorted(checkpoint.tensors.keys() - names.values())
            why = f"outside of {prefix}*: no model here has such a neck, BEV encoder or head"
            weights = kind if kind == "ema" else checkpoint.weights
            return CameraBackbone.of(family), checkpoint.renamed(names, dict.fromkeys(others, why), weights=weights)
    raise InputError(
        f"{given}: has no {PART} of {', '.join(FAMILIES)}; its first keys are {some(checkpoint.tensors)}. "
        "Leave out --part, or pass --part backbone for that of a detector or a segmentation model."
    )


def _looks_like(names: Iterable[str]) -> str:
    """What a checkpoint of another kind is, where its names show it."""
    if any(".lora_" in name for name in names):
        return ", but an adapter (LoRA): merge it into its model and save that"
    if any(name.startswith(tuple(f"{model_type}." for model_type in FAMILIES)) for name in names):
        return ", but of a converted model: load it with AutoModel"
    return ""


def backbone_alone(convertible: Convertible, checkpoint: Checkpoint) -> tuple[Family, Checkpoint]:
    """The backbone of a checkpoint without the head on it, and its tensors by the names that they have without one.

    Raises:
        InputError: There is no head but a classifier.
    """
    if isinstance(convertible, Family):
        raise InputError(
            f"{checkpoint.source.given}: a classifier, whose backbone AutoBackbone loads from the whole. "
            "Leave out --part."
        )
    names = {name.removeprefix(BACKBONE): name for name in checkpoint.tensors if name.startswith(BACKBONE)}
    others = checkpoint.tensors.keys() - names.values()
    checkpoint = checkpoint.renamed(names, dict.fromkeys(sorted(others), "outside of the backbone"))
    return convertible.backbone.alone(), checkpoint


def convertible_of(config: PreTrainedConfig, part: str | None = None) -> Convertible | None:
    """What a converted model's config is of; `None` for a model that cannot have been converted.

    Args:
        config: The config.
        part: What of a checkpoint it is, if not all: its backbone, by either name.
    """
    if part:
        return FAMILIES[config.model_type].alone() if config.model_type in FAMILIES else None
    head = next((head for head in HEADS if config.model_type in head.model_types), None)
    if head is None:
        return FAMILIES.get(config.model_type)
    family = FAMILIES.get(config.backbone_config.model_type)
    return family and BackboneWithHead(family, head)
