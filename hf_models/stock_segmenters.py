"""UperNet and Mask2Former of transformers on the backbones here, in repositories that carry their code.

transformers knows these models, but not the backbones that their configs name. The `auto_map` of such a repository
leads here, so that they are registered before the config is read. The classes add nothing; there have to be some
because transformers saves the code of what it loaded in this way, which it cannot do with its own classes.
"""

from huggingface_hub.dataclasses import strict
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from .auto import register_families

register_families(replace=False)


@strict
class HubUperNetConfig(UperNetConfig):
    """Configuration of [`HubUperNetForSemanticSegmentation`]; the fields are those of `UperNetConfig`."""


class HubUperNetForSemanticSegmentation(UperNetForSemanticSegmentation):
    """`UperNetForSemanticSegmentation`, with its code."""

    config: HubUperNetConfig
    config_class = HubUperNetConfig


@strict
class HubMask2FormerConfig(Mask2FormerConfig):
    """Configuration of [`HubMask2FormerForUniversalSegmentation`]; the fields are those of `Mask2FormerConfig`."""


class HubMask2FormerForUniversalSegmentation(Mask2FormerForUniversalSegmentation):
    """`Mask2FormerForUniversalSegmentation`, with its code."""

    config: HubMask2FormerConfig
    config_class = HubMask2FormerConfig


__all__ = [
    "HubMask2FormerConfig",
    "HubMask2FormerForUniversalSegmentation",
    "HubUperNetConfig",
    "HubUperNetForSemanticSegmentation",
]
