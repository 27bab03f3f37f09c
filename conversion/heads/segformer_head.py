"""The SegFormer head of mmseg as our `SegformerHeadForSemanticSegmentation`."""

from hf_models.configuration_segformer_head import SegformerHeadConfig

from ..mapping.arguments import arguments
from ..mapping.facts import Facts, Shapes, size
from ..mapping.key_map import Rule
from .head import stage_indices
from .mmseg import SegmentationHead

RULES = (
    Rule(r"^decode_head\.conv_seg\.", "decode_head.classifier."),
    Rule(r"^decode_head\.convs\.", "decode_head.projections."),
    Rule(r"^decode_head\.fusion_conv\.", "decode_head.fusion."),
    Rule(r"\.bn\.", ".batch_norm."),
)


def _facts_of_weights(shapes: Shapes) -> Facts:
    return {
        "num_classes": size(shapes, "decode_head.classifier.weight"),
        "decode_head.channels": size(shapes, "decode_head.fusion.conv.weight"),
    }


def _facts_of_config(config: SegformerHeadConfig) -> Facts:
    return {"num_classes": config.num_labels, "decode_head.channels": config.hidden_size}


def _build_config(original: dict, shared: dict) -> SegformerHeadConfig:
    given = arguments(
        original,
        required={"decode_head.in_channels": list, "decode_head.channels": int, "decode_head.num_classes": int},
        defaults={"decode_head.ignore_index": 255},
        only={
            "decode_head.type": ("SegformerHead",),
            "decode_head.in_index": (stage_indices(shared["backbone_config"]),),
            "decode_head.input_transform": ("multiple_select",),
            "decode_head.interpolate_mode": ("bilinear",),
            "decode_head.norm_cfg.type": ("BN", "SyncBN"),
            "decode_head.act_cfg.type": ("ReLU",),
            "decode_head.conv_cfg": (None,),
            "decode_head.align_corners": (False,),
        },
    )
    return SegformerHeadConfig(
        num_labels=given["decode_head.num_classes"],
        hidden_size=given["decode_head.channels"],
        loss_ignore_index=given["decode_head.ignore_index"],
        **shared,
    )


HEAD = SegmentationHead(
    model_types=("segformer_head",),
    title="SegFormer head",
    signature="decode_head.fusion_conv.conv.weight",
    rules=RULES,
    build_config=_build_config,
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
)
