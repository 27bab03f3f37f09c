"""Which families and heads can be converted, and which of them a checkpoint or a config is of."""

from importlib import import_module
from importlib.util import find_spec

from transformers import PreTrainedConfig

from hf_models.auto import FAMILIES as REGISTERED
from hf_models.errors import InputError

from .backbones.family import Family
from .heads import HEADS
from .heads.head import BACKBONE, BackboneWithHead
from .mapping.convertible import Convertible
from .reading.checkpoint import Checkpoint, some

BACKBONES = f"{__package__}.backbones"
# a registered family's part lies in the file named after its model_type; one without originals has none
FAMILIES: dict[str, Family] = {
    config.model_type: import_module(f"{BACKBONES}.{config.model_type}").FAMILY
    for config, *_ in REGISTERED
    if find_spec(f"{BACKBONES}.{config.model_type}")
}
ANY_HEAD = ("decode_head.", "neck.", "rpn_head.", "roi_head.", "bbox_head.")


def find_convertible(checkpoint: Checkpoint) -> Convertible:
    """The family by whose signature a checkpoint can be told, with the head that it has.

    Raises:
        InputError: It is none of them.
    """
    given, names = checkpoint.source.given, checkpoint.tensors
    for family in FAMILIES.values():
        if any(name == family.signature or name.endswith(f".{family.signature}") for name in names):
            if f"{BACKBONE}{family.signature}" not in names:
                return family
            if head := next((head for head in HEADS if head.signature in names), None):
                return BackboneWithHead(family, head)
            if any(name.startswith(ANY_HEAD) for name in names):
                raise InputError(
                    f"{given}: {family.model_type} with a head that cannot be converted. "
                    f"Those that can are: {', '.join(head.title for head in HEADS)}."
                )
            return family
    raise InputError(f"{given}: not a checkpoint of {', '.join(FAMILIES)}. Its first keys are {some(names)}.")


def convertible_of(config: PreTrainedConfig) -> Convertible | None:
    """What a converted model's config is of; `None` for a model that cannot have been converted."""
    head = next((head for head in HEADS if config.model_type in head.model_types), None)
    if head is None:
        return FAMILIES.get(config.model_type)
    family = FAMILIES.get(config.backbone_config.model_type)
    return family and BackboneWithHead(family, head)
