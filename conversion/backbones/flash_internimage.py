"""FlashInternImage: names and arguments of https://github.com/OpenGVLab/DCNv4.

Its stages, stem and head are named as those of InternImage.
"""

from hf_models.configuration_flash_internimage import FlashInternImageConfig
from hf_models.errors import InputError
from hf_models.modeling_flash_internimage import FlashInternImageForImageClassification

from ..mapping.arguments import arguments
from ..mapping.facts import Facts, Shapes, by_stage, has, size
from ..mapping.key_map import Rule
from .family import Family
from .internimage import DEFAULTS, ONLY, STAGE_RULES, layer_scale, stage_facts_of_config, stage_facts_of_weights


def _offset_mask_width(groups: int) -> int:
    # x, y and weight of each of the 3 x 3 points of each group, padded to a multiple of 8
    return -(-27 * groups // 8) * 8


def _facts_of_weights(shapes: Shapes) -> Facts:
    return stage_facts_of_weights(shapes) | {
        "offset_mask widths": by_stage(shapes, "layers.0.dcn.offset_mask.weight"),
        # no convolution where the original's argument is None, which a size cannot say
        "dw_kernel_size": size(shapes, "encoder.stages.0.layers.0.dcn.depthwise_conv.weight", axis=-1) or 0,
        "mlp_fc2_bias": has(shapes, r"\.mlp\.fc2\.bias$"),
        "dcn_output_bias": has(shapes, r"\.dcn\.output_proj\.bias$"),
    }


def _facts_of_config(config: FlashInternImageConfig) -> Facts:
    return stage_facts_of_config(config) | {
        "offset_mask widths": [_offset_mask_width(groups) for groups in config.groups],
        "dw_kernel_size": config.depthwise_kernel_size or 0,
        "mlp_fc2_bias": config.mlp_output_bias,
        "dcn_output_bias": config.dcn_output_bias,
    }


def _config_from_original(original: dict, shown: Facts) -> FlashInternImageConfig:
    given = arguments(
        original,
        required={"channels": int, "depths": list, "groups": list},
        defaults=DEFAULTS | {"layer_scale": None, "mlp_fc2_bias": False, "dcn_output_bias": False},
        only=ONLY
        | {
            "core_op": ("DCNv4",),
            "res_post_norm": (False,),
            "center_feature_scale": (False,),
            "level2_post_norm": (False,),
            "level2_post_norm_block_ids": (None,),
            "use_clip_projector": (False,),
        },
        ignored=("with_cp",),
    )
    if given["dw_kernel_size"] == 0:
        raise InputError("dw_kernel_size=0 is not supported. None stands for no convolution.")
    return FlashInternImageConfig(
        num_labels=given["num_classes"],
        hidden_sizes=[given["channels"] * 2**stage for stage in range(len(given["depths"]))],
        depths=given["depths"],
        groups=given["groups"],
        mlp_ratio=given["mlp_ratio"],
        depthwise_kernel_size=given["dw_kernel_size"],
        offset_scale=given["offset_scale"],
        post_norm=given["post_norm"],
        layer_scale_init_value=layer_scale(original, shown),
        mlp_output_bias=given["mlp_fc2_bias"],
        dcn_output_bias=given["dcn_output_bias"],
        pooler_expansion=given["cls_scale"],
        drop_path_rate=given["drop_path_rate"],
    )


FAMILY = Family(
    model_class=FlashInternImageForImageClassification,
    signature="levels.0.blocks.0.dcn.offset_mask.weight",
    rules=(*STAGE_RULES, Rule(r"\.dcn\.offset_mask_dw\.", ".dcn.depthwise_conv.", optional=True)),
    config_from_original=_config_from_original,
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
)
