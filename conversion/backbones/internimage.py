"""InternImage: names and arguments of https://github.com/OpenGVLab/InternImage, and of its port on the Hub.

LayerNorms of the original sit in a Sequential beside layout changes, hence the extra index in their names.
"""

import math
import re
from functools import partial

from hf_models.configuration_internimage import InternImageConfig
from hf_models.errors import InputError
from hf_models.modeling_internimage import InternImageForImageClassification

from ..mapping.arguments import arguments
from ..mapping.facts import Facts, Shapes, by_stage, count, depths, has, size
from ..mapping.key_map import Rule
from .family import Family


def _next_stage(match: re.Match) -> str:
    # the original ends a level with the downsampling, we begin the next stage with it
    return f"encoder.stages.{int(match[1]) + 1}.downsample.{match[2]}."


STAGE_RULES = (
    Rule(r"^patch_embed\.(conv[12])\.", r"embeddings.\1."),
    Rule(r"^patch_embed\.(norm[12])\.1\.", r"embeddings.\1."),
    Rule(r"^levels\.(\d+)\.downsample\.(conv)\.", _next_stage),
    Rule(r"^levels\.(\d+)\.downsample\.(norm)\.1\.", _next_stage),
    Rule(r"^levels\.(\d+)\.norm\.0\.", r"encoder.stages.\1.norm.", optional=True),
    Rule(r"^levels\.(\d+)\.blocks\.(\d+)\.", r"encoder.stages.\1.layers.\2."),
    Rule(r"\.(norm[12]|res_post_norm[12])\.0\.", r".\1."),
    Rule(r"\.(?:gamma|layer_scale)([12])$", r".layer_scale\1.scale", optional=True),
    Rule(r"^conv_head\.0\.", "pooler.conv.", optional=True),
    Rule(r"^conv_head\.1\.0\.", "pooler.norm.", optional=True),
    Rule(r"^head\.", "classifier.", optional=True),
)
RULES = (
    *STAGE_RULES,
    Rule(r"\.dcn\.dw_conv\.0\.", ".dcn.depthwise_conv."),
    Rule(r"\.dcn\.dw_conv\.1\.1\.", ".dcn.norm."),
    Rule(r"\.dcn\.center_feature_scale_proj_(weight|bias)$", r".dcn.center_feature_scale.\1", optional=True),
    Rule(r"^levels\.(\d+)\.post_norms\.(\d+)\.0\.", r"encoder.stages.\1.intermediate_norms.\2.", optional=True),
    Rule(r"^dcnv3_head_x3\.", "pooler.stage3_projection.", optional=True),
    Rule(r"^dcnv3_head_x4\.0\.", "pooler.stage4_projection.", optional=True),
    Rule(r"^clip_projector\.norm1_q\.0\.", "pooler.query_norm.", optional=True),
    Rule(r"^clip_projector\.norm1_k\.0\.", "pooler.key_norm.", optional=True),
    Rule(r"^clip_projector\.norm1_v\.0\.", "pooler.value_norm.", optional=True),
    Rule(r"^clip_projector\.cross_dcn\.q(?:\.weight|_(bias))$", lambda m: f"pooler.query.{m[1] or 'weight'}", True),
    Rule(r"^clip_projector\.cross_dcn\.k(?:\.weight|_(bias))$", lambda m: f"pooler.key.{m[1] or 'weight'}", True),
    Rule(r"^clip_projector\.cross_dcn\.v(?:\.weight|_(bias))$", lambda m: f"pooler.value.{m[1] or 'weight'}", True),
    Rule(r"^clip_projector\.cross_dcn\.proj\.", "pooler.projection.", optional=True),
    Rule(r"^fc_norm\.0\.", "pooler.norm.", optional=True),
    Rule(r"^meta_head_1\.", "metadata_head.temporal.", optional=True),
    Rule(r"^meta_head_2\.", "metadata_head.spatial.", optional=True),
    Rule(r"^(metadata_head\.\w+)\.0\.", r"\1.projection.", optional=True),
    Rule(r"^(metadata_head\.\w+)\.2\.", r"\1.norm.", optional=True),
    Rule(r"^(metadata_head\.\w+)\.3\.w([12])\.", r"\1.fc\2.", optional=True),
    Rule(r"^(metadata_head\.\w+)\.3\.norm_fn([12])\.", r"\1.norm\2.", optional=True),
    Rule(r"^meta_norm\.", "metadata_head.norm.", optional=True),
    Rule(r"^meta_head\.", "metadata_head.classifier.", optional=True),
)
# constants of the original's attention pooler: output channels, PixelShuffle factor, heads, output width
HEAD = {"dim": 1024, "stride": 2, "heads": 16, "out": 768}
# what the constructors of InternImage and FlashInternImage share
DEFAULTS = {
    "num_classes": 1000,
    "mlp_ratio": 4.0,
    "drop_path_rate": 0.0,
    "offset_scale": 1.0,
    "post_norm": False,
    "cls_scale": 1.5,
    "dw_kernel_size": None,
}
ONLY = {
    "act_layer": ("GELU",),
    "norm_layer": ("LN",),
    "drop_rate": (0.0,),
    "drop_path_type": ("linear",),
    "remove_center": (False, None),
}


def layer_scale(original: dict, shown: Facts) -> float | None:
    """The initial layer scale, by the weights where the arguments leave it open: 1.0 is what fine-tuning used."""
    value = original.get("layer_scale", 1.0 if shown["layer_scale"] else None)
    return float(value) if type(value) is int else value


def stage_facts_of_weights(shapes: Shapes) -> Facts:
    """What both families show."""
    widths = by_stage(shapes, "downsample.conv.weight")[1:]
    return {
        "channels": [size(shapes, "embeddings.conv2.weight"), *widths],
        "depths": depths(shapes),
        "mlp widths": by_stage(shapes, "layers.0.mlp.fc1.weight"),
        "layer_scale": has(shapes, r"\.layer_scale1\.scale$"),
        "level norms": has(shapes, r"^encoder\.stages\.\d+\.norm\."),
        "conv_head width": size(shapes, "pooler.conv.weight"),
        "num_classes": size(shapes, "classifier.weight"),
    }


def stage_facts_of_config(config) -> Facts:
    return {
        "channels": list(config.hidden_sizes),
        "depths": list(config.depths),
        "mlp widths": [int(width * config.mlp_ratio) for width in config.hidden_sizes],
        "layer_scale": config.layer_scale_init_value is not None,
        "level norms": config.normalizes_stages,
        "conv_head width": int(config.hidden_sizes[-1] * config.pooler_expansion),
        "num_classes": config.num_labels,
    }


def _facts_of_weights(shapes: Shapes) -> Facts:
    attention = has(shapes, r"^pooler\.query\.")
    width = size(shapes, "pooler.stage3_projection.weight")
    upsampled = size(shapes, "pooler.stage4_projection.weight")
    return stage_facts_of_weights(shapes) | {
        # 3 x 3 points, each with x and y
        "groups": [rows and rows // 18 for rows in by_stage(shapes, "layers.0.dcn.offset.weight")],
        "dw_kernel_size": size(shapes, "encoder.stages.0.layers.0.dcn.depthwise_conv.weight", axis=-1),
        "center_feature_scale": has(shapes, r"\.dcn\.center_feature_scale\."),
        "res_post_norm": has(shapes, r"\.res_post_norm1\."),
        "level2_post_norms": count(shapes, r"^encoder\.stages\.2\.intermediate_norms\.(\d+)\."),
        "use_clip_projector": attention,
        "head dim": width,
        "head stride": math.isqrt(upsampled // width) if upsampled and width else None,
        "head out": size(shapes, "pooler.projection.weight"),
        "meta_dim": size(shapes, "metadata_head.temporal.projection.weight"),
    }


def _facts_of_config(config: InternImageConfig) -> Facts:
    return stage_facts_of_config(config) | {
        "groups": list(config.groups),
        "dw_kernel_size": config.depthwise_kernel_size,
        "center_feature_scale": config.center_feature_scale,
        "res_post_norm": config.res_post_norm,
        "level2_post_norms": len(config.intermediate_norm_layers),
        "use_clip_projector": config.pooler_type == "attention",
        "head dim": config.pooler_hidden_size,
        "head stride": config.pooler_upsampling,
        "head out": config.pooler_output_size,
        "meta_dim": config.metadata_hidden_size,
    }


def build_config(config_class: type[InternImageConfig], original: dict, shown: Facts) -> InternImageConfig:
    """The config of one InternImage, or of several that are alike, as [`Family`] wants it."""
    given = arguments(
        original,
        required={"channels": int, "depths": list, "groups": list},
        defaults=DEFAULTS
        | {
            "layer_scale": None,
            "res_post_norm": False,
            "center_feature_scale": False,
            "level2_post_norm": False,
            "level2_post_norm_block_ids": None,
            "use_clip_projector": False,
            "head": HEAD,
            "meta_dim": None,
        },
        only=ONLY | {"core_op": ("DCNv3", "DCNv3_pytorch")},
        ignored=("with_cp", "use_dcn_v4_op"),  # DCNv4's operator computes the same
    )
    head = HEAD | given["head"]
    initial_scale = layer_scale(original, shown)
    if given["res_post_norm"] and (given["post_norm"] or initial_scale is not None):
        raise InputError(
            "res_post_norm=True is not supported beside post_norm or layer_scale: the original ignores it."
        )
    return config_class(
        num_labels=given["num_classes"],
        hidden_sizes=[given["channels"] * 2**stage for stage in range(len(given["depths"]))],
        depths=given["depths"],
        groups=given["groups"],
        mlp_ratio=given["mlp_ratio"],
        depthwise_kernel_size=given["dw_kernel_size"] or 3,
        offset_scale=given["offset_scale"],
        post_norm=given["post_norm"],
        res_post_norm=given["res_post_norm"],
        layer_scale_init_value=initial_scale,
        center_feature_scale=given["center_feature_scale"],
        intermediate_norm_layers=(given["level2_post_norm_block_ids"] or ()) if given["level2_post_norm"] else (),
        pooler_type="attention" if given["use_clip_projector"] else "conv",
        pooler_expansion=given["cls_scale"],
        pooler_hidden_size=head["dim"],
        pooler_num_heads=head["heads"],
        pooler_output_size=head["out"],
        pooler_upsampling=head["stride"],
        # the original with a head for metadata is a class of its own, in which 64 is the default
        metadata_hidden_size=given["meta_dim"] or shown["meta_dim"],
        drop_path_rate=given["drop_path_rate"],
    )


FAMILY = Family(
    model_class=InternImageForImageClassification,
    signature="levels.0.blocks.0.dcn.offset.weight",
    rules=RULES,
    config_from_original=partial(build_config, InternImageConfig),
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
    heads=("classifier.", "metadata_head."),
)
