"""Which families and heads there are, and which of them a checkpoint or a config is of."""

from importlib import import_module
from importlib.util import find_spec

import torch
from transformers import PreTrainedConfig

from hf_models.auto import FAMILIES as REGISTERED
from hf_models.errors import InputError, reason

from .backbones.family import Family
from .heads import mask2former, segformer_head, upernet
from .heads.segmentation import BACKBONE, SegmentationFamily
from .key_map import KeyMap
from .reading.checkpoint import Checkpoint, some

BACKBONES = f"{__package__}.backbones"
# a registered family's part lies in the file named after its model_type; one without originals has none
FAMILIES: dict[str, Family] = {
    config.model_type: import_module(f"{BACKBONES}.{config.model_type}").FAMILY
    for config, *_ in REGISTERED
    if find_spec(f"{BACKBONES}.{config.model_type}")
}
# UperNet before its variant: the weights do not tell them apart
HEADS = (upernet.HEAD, upernet.ALIGNED_HEAD, mask2former.HEAD, segformer_head.HEAD)
ANY_HEAD = ("decode_head.", "neck.", "rpn_head.", "roi_head.", "bbox_head.")


def find_family(checkpoint: Checkpoint) -> Family | SegmentationFamily:
    """The family by whose signature a checkpoint can be told, with the head that it has."""
    for family in FAMILIES.values():
        if any(name == family.signature or name.endswith(f".{family.signature}") for name in checkpoint.tensors):
            if f"{BACKBONE}{family.signature}" not in checkpoint.tensors:
                return family
            heads = [head for head in HEADS if head.signature in checkpoint.tensors]
            if heads:
                return SegmentationFamily(family, heads[0])
            if any(name.startswith(ANY_HEAD) for name in checkpoint.tensors):
                raise InputError(
                    f"{checkpoint.source.given}: {family.model_type} with a head that cannot be converted. "
                    f"Those that can are: {', '.join(dict.fromkeys(head.title for head in HEADS))}."
                )
            return family
    known = ", ".join(FAMILIES)
    raise InputError(
        f"{checkpoint.source.given}: not a checkpoint of {known}. Its first keys are {some(checkpoint.tensors)}."
    )


def family_of(config: PreTrainedConfig) -> Family | SegmentationFamily | None:
    """The family, and the head, that a converted model's config is of; `None` for a foreign one."""
    for head in HEADS:
        if config.model_type == head.model_class.config_class.model_type:
            backbone = FAMILIES.get(config.backbone_config.model_type)
            return backbone and SegmentationFamily(backbone, head)
    return FAMILIES.get(config.model_type)


def checkpoint_key_map(family: Family | SegmentationFamily, checkpoint: Checkpoint) -> KeyMap:
    """Where every tensor of the model lies in a checkpoint."""
    try:
        return family.key_map(checkpoint.tensors)
    except InputError as error:
        raise InputError(f"{checkpoint.source.given}: {error}") from error


def model_tensors(
    family: Family | SegmentationFamily, config: PreTrainedConfig
) -> tuple[dict[str, torch.Tensor], set[str]]:
    """A model's parameters and buffers as tensors on the meta device, and the names of the buffers.

    Raises:
        InputError: No model can be built from the config.
    """
    try:
        with torch.device("meta"):
            model = family.model_class(config)
    except Exception as error:  # the models check their configs only as far as users get them wrong
        raise InputError(f"{family.title}: no model can be built from its config ({reason(error)}).") from error
    return dict(model.state_dict()), {name for name, _ in model.named_buffers()}
