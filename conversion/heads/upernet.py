"""UperNet: mmseg's UPerHead, and the FCNHead that helps to train it, as transformers' UperNet or our variant."""

from transformers import UperNetConfig

from hf_models.configuration_aligned_upernet import AlignedUperNetConfig

from ..mapping.arguments import arguments
from ..mapping.facts import Facts, Shapes, count, has, size
from ..mapping.key_map import Rule
from .head import stage_indices
from .mmseg import SegmentationHead

RULES = (
    Rule(r"^(decode_head|auxiliary_head)\.conv_seg\.", r"\1.classifier."),
    Rule(r"\.bn\.", ".batch_norm."),
)
ONLY = {
    "norm_cfg.type": ("BN", "SyncBN"),
    "act_cfg.type": ("ReLU",),
    "conv_cfg": (None,),
}


def _facts_of_weights(shapes: Shapes) -> Facts:
    auxiliary = has(shapes, r"^auxiliary_head\.")
    return {
        "num_classes": size(shapes, "decode_head.classifier.weight"),
        "decode_head.channels": size(shapes, "decode_head.bottleneck.conv.weight"),
        "decode_head.pool_scales": count(shapes, r"^decode_head\.psp_modules\.(\d+)\."),
        "auxiliary_head": auxiliary,
        "auxiliary_head.channels": size(shapes, "auxiliary_head.classifier.weight", axis=1),
        "auxiliary_head.num_convs": count(shapes, r"^auxiliary_head\.convs\.(\d+)\.") if auxiliary else None,
        "auxiliary_head.concat_input": has(shapes, r"^auxiliary_head\.conv_cat\.") if auxiliary else None,
    }


def _facts_of_config(config: UperNetConfig) -> Facts:
    return {
        "num_classes": config.num_labels,
        "decode_head.channels": config.hidden_size,
        "decode_head.pool_scales": len(config.pool_scales),
        "auxiliary_head": config.use_auxiliary_head,
        "auxiliary_head.channels": config.auxiliary_channels,
        "auxiliary_head.num_convs": config.auxiliary_num_convs,
        "auxiliary_head.concat_input": config.auxiliary_concat_input,
    }


def _build_config(original: dict, shared: dict) -> UperNetConfig:
    auxiliary = any(name.startswith("auxiliary_head.") for name in original)
    parts = ("decode_head", "auxiliary_head")
    given = arguments(
        original,
        required={"decode_head.in_channels": list, "decode_head.channels": int, "decode_head.num_classes": int}
        | ({"auxiliary_head.in_channels": int, "auxiliary_head.channels": int} if auxiliary else {}),
        defaults={
            "decode_head.pool_scales": [1, 2, 3, 6],
            "decode_head.align_corners": False,
            "decode_head.ignore_index": 255,
            "auxiliary_head.num_convs": 2,
            "auxiliary_head.concat_input": True,
        },
        only={
            "decode_head.type": ("UPerHead",),
            "decode_head.in_index": (stage_indices(shared["backbone_config"]),),
            "decode_head.input_transform": ("multiple_select",),
            "auxiliary_head.type": ("FCNHead",),
            "auxiliary_head.in_index": (2,),
            "auxiliary_head.kernel_size": (3,),
            "auxiliary_head.dilation": (1,),
            **{f"{part}.{name}": values for part in parts for name, values in ONLY.items()},
        },
        # the auxiliary head takes part in training only; `num_classes` shows in its weights
        ignored=(
            "auxiliary_head.num_classes",
            "auxiliary_head.align_corners",
            "auxiliary_head.ignore_index",
        ),
    )
    aligned = given["decode_head.align_corners"]
    shared["segmentation_recipe"]["align_corners"] = aligned
    head = {
        "auxiliary_in_channels": given.get("auxiliary_head.in_channels"),
        "auxiliary_channels": given.get("auxiliary_head.channels"),
        "auxiliary_num_convs": given["auxiliary_head.num_convs"],
        "auxiliary_concat_input": given["auxiliary_head.concat_input"],
    }
    return (AlignedUperNetConfig if aligned else UperNetConfig)(
        num_labels=given["decode_head.num_classes"],
        hidden_size=given["decode_head.channels"],
        pool_scales=given["decode_head.pool_scales"],
        use_auxiliary_head=auxiliary,
        loss_ignore_index=given["decode_head.ignore_index"],
        **(head if auxiliary else {}),
        **shared,
    )


HEAD = SegmentationHead(
    model_types=("upernet", "aligned_upernet"),
    title="UperNet",
    signature="decode_head.psp_modules.0.1.conv.weight",
    rules=RULES,
    build_config=_build_config,
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
    counted=("auxiliary_num_convs",),
)
