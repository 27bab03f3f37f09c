"""Two InternImages as one backbone: names and arguments of https://github.com/OpenGVLab/InternImage."""

from functools import partial

from hf_models.configuration_cb_internimage import CBInternImageConfig
from hf_models.modeling_cb_internimage import CBInternImageBackbone

from ..mapping.facts import Facts, Shapes
from ..mapping.key_map import Rule
from . import internimage
from .family import Family

RULES = (
    Rule(r"^cb_modules\.0\.", ""),
    # the lead's levels are those from 10 on, for as long as the rules of InternImage take
    Rule(r"^cb_modules\.1\.levels\.", "levels.1"),
    Rule(r"^cb_modules\.1\.gamma(\d)$", r"encoder.scales.\1.scale"),
    # the link of two stages of the same resolution is the identity, which has no tensors
    Rule(r"^cb_linears\.(\d)\.(\d)\.", lambda match: f"encoder.links.{match[1]}.{int(match[2]) - 1}."),
    *internimage.RULES,
    Rule(r"^encoder\.stages\.1(\d)\.", r"encoder.lead.stages.\1."),
    Rule(r"^encoder\.stages\.(\d)\.", r"encoder.assistant.stages.\1."),
)


def _facts_of_weights(shapes: Shapes) -> Facts:
    assistant, lead = (
        internimage.FAMILY.facts_of_weights(
            {name.replace(f"encoder.{part}.", "encoder."): shape for name, shape in shapes.items()}
        )
        for part in ("assistant", "lead")
    )
    return lead | {f"assistant's {name}": value for name, value in assistant.items()}


def _facts_of_config(config: CBInternImageConfig) -> Facts:
    facts = internimage.FAMILY.facts_of_config(config)
    return facts | {f"assistant's {name}": value for name, value in facts.items()}


FAMILY = Family(
    model_class=CBInternImageBackbone,
    signature=f"cb_modules.0.{internimage.FAMILY.signature}",
    rules=RULES,
    config_from_original=partial(internimage.build_config, CBInternImageConfig),
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
    heads=("",),  # there is no base model inside
)
