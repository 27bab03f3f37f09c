"""RepLKNet: names and arguments of https://github.com/DingXiaoH/RepLKNet-pytorch, unmerged or merged."""

import re

from hf_models.configuration_replknet import RepLKNetConfig
from hf_models.modeling_replknet import RepLKNetForImageClassification

from ..mapping.arguments import arguments
from ..mapping.facts import Facts, Shapes, by_stage, depths, has, size
from ..mapping.key_map import Rule
from .family import Family


def _layer(match: re.Match) -> str:
    # the original's flat list alternates the two blocks that we call one layer
    block = int(match[2])
    part = "feed_forward" if block % 2 else "large_kernel_block"
    return f"encoder.stages.{match[1]}.layers.{block // 2}.{part}."


RULES = (
    Rule(r"^stem\.(\d+)\.", r"embeddings.layers.\1."),
    Rule(r"^transitions\.(\d+)\.", lambda match: f"encoder.stages.{int(match[1]) + 1}.downsample."),
    Rule(r"^stages\.(\d+)\.blocks\.(\d+)\.", _layer),
    Rule(r"\.(?:prelkb|preffn)_bn\.", ".norm."),
    Rule(r"\.pw([12])\.", r".pointwise\1."),
    Rule(r"\.large_kernel\.lkb_origin\.", ".large_kernel.large.", optional=True),
    Rule(r"\.large_kernel\.small_conv\.", ".large_kernel.small.", optional=True),
    Rule(r"\.large_kernel\.lkb_reparam\.", ".large_kernel.merged.", optional=True),
    Rule(r"\.bn\.", ".norm."),
    Rule(r"^norm\.", "pooler.norm.", optional=True),
    # of each feature map, for segmentation and detection
    Rule(r"^stages\.(\d+)\.norm\.", lambda match: f"feature_norms.stage{int(match[1]) + 1}.", optional=True),
    # pretraining files may call their head cls_22k
    Rule(r"^head\.(?:cls_22k\.)?", "classifier.", optional=True),
)


def _facts_of_weights(shapes: Shapes) -> Facts:
    merged = has(shapes, r"\.large_kernel\.merged\.")
    block = "layers.0.large_kernel_block."
    large = block + ("large_kernel.merged.weight" if merged else "large_kernel.large.conv.weight")
    small = size(shapes, f"encoder.stages.0.{block}large_kernel.small.conv.weight", axis=-1)
    return {
        "channels": by_stage(shapes, block + "norm.weight"),
        "layers": depths(shapes),
        "large_kernel_sizes": by_stage(shapes, large, axis=-1),
        # once merged, the small kernel cannot be seen
        "small_kernel": None if merged else small or 0,
        "large kernel widths": by_stage(shapes, large),
        "ffn widths": by_stage(shapes, "layers.0.feed_forward.pointwise1.conv.weight"),
        "small_kernel_merged": merged,
        "norm_intermediate_features": has(shapes, r"^feature_norms\."),
        "num_classes": size(shapes, "classifier.weight"),
    }


def _facts_of_config(config: RepLKNetConfig) -> Facts:
    return {
        "channels": list(config.hidden_sizes),
        "layers": list(config.depths),
        "large_kernel_sizes": list(config.kernel_sizes),
        "small_kernel": config.small_kernel_size or 0,
        "large kernel widths": [int(width * config.bottleneck_ratio) for width in config.hidden_sizes],
        "ffn widths": [int(width * config.mlp_ratio) for width in config.hidden_sizes],
        "small_kernel_merged": config.reparameterized,
        "norm_intermediate_features": config.normalize_features,
        "num_classes": config.num_labels,
    }


def _config_from_original(original: dict, shown: Facts) -> RepLKNetConfig:
    given = arguments(
        original,
        required=dict.fromkeys(("large_kernel_sizes", "layers", "channels"), list),
        defaults={
            "num_classes": 1000,
            "in_channels": 3,
            "small_kernel": None,
            "dw_ratio": 1.0,
            "ffn_ratio": 4.0,
            "drop_path_rate": 0.0,
            "norm_intermediate_features": False,
        },
        only={"out_indices": (None,)},
        ignored=("use_checkpoint", "use_sync_bn", "small_kernel_merged"),
    )
    return RepLKNetConfig(
        num_labels=given["num_classes"],
        num_channels=given["in_channels"],
        hidden_sizes=given["channels"],
        depths=given["layers"],
        kernel_sizes=given["large_kernel_sizes"],
        small_kernel_size=given["small_kernel"],
        bottleneck_ratio=given["dw_ratio"],
        mlp_ratio=given["ffn_ratio"],
        drop_path_rate=given["drop_path_rate"],
        normalize_features=given["norm_intermediate_features"],
    )


def _adopt(config: RepLKNetConfig, shown: Facts) -> None:
    """The same network is published unmerged, and merged by whoever deploys it: the file decides."""
    config.reparameterized = shown["small_kernel_merged"]


def _image_statistics(config: RepLKNetConfig) -> dict[str, list[float]]:
    # RepLKNet-XL, of what is published the only one with norms of its feature maps, saw images from -1 to 1
    return {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if config.normalize_features else {}


FAMILY = Family(
    model_class=RepLKNetForImageClassification,
    signature="stem.0.conv.weight",
    rules=RULES,
    aliases={"stages.3.norm.": "norm."},  # OpenMMLab republishes these weights so
    config_from_original=_config_from_original,
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
    adopt=_adopt,
    image_statistics=_image_statistics,
)
