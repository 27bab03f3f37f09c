"""FCOS of mmdet as our `BackboneFCOSForObjectDetection`."""

from transformers import PreTrainedConfig

from hf_models.configuration_backbone_fcos import BackboneFCOSConfig

from ..mapping.facts import Facts, Shapes, count, size
from ..mapping.key_map import Rule
from .mmdet import FPN, FPN_RULES, NMS, DetectionHead, ModelDict

RULES = (
    *FPN_RULES,
    Rule(r"^bbox_head\.cls_convs\.(\d+)\.conv\.", r"head.class_tower.convs.\1."),
    Rule(r"^bbox_head\.cls_convs\.(\d+)\.gn\.", r"head.class_tower.norms.\1."),
    Rule(r"^bbox_head\.reg_convs\.(\d+)\.conv\.", r"head.box_tower.convs.\1."),
    Rule(r"^bbox_head\.reg_convs\.(\d+)\.gn\.", r"head.box_tower.norms.\1."),
    Rule(r"^bbox_head\.conv_cls\.", "head.classifier."),
    Rule(r"^bbox_head\.conv_reg\.", "head.distances."),
    Rule(r"^bbox_head\.conv_centerness\.", "head.centreness."),
    Rule(r"^bbox_head\.scales\.(\d+)\.scale$", r"head.scales.\1"),
)


def _facts_of_weights(shapes: Shapes) -> Facts:
    return {
        "num_classes": size(shapes, "head.classifier.weight"),
        "neck.out_channels": size(shapes, "neck.output_convs.0.weight"),
        "neck.num_outs": count(shapes, r"^head\.scales\.(\d+)$"),
        "stacked_convs": count(shapes, r"^head\.class_tower\.convs\.(\d+)\."),
    }


def _facts_of_config(config: BackboneFCOSConfig) -> Facts:
    return {
        "num_classes": config.num_labels,
        "neck.out_channels": config.fpn_channels,
        "neck.num_outs": len(config.level_strides),
        "stacked_convs": config.head_convs,
    }


def _build_config(model: ModelDict, backbone_config: PreTrainedConfig) -> BackboneFCOSConfig:
    # the backbone returns all stages, and the pyramid leaves out the first
    backbone_config.out_features = backbone_config.out_features[1:]
    neck = model.take(
        "neck.",
        required={"out_channels": int, "num_outs": int, "start_level": int, "add_extra_convs": str}
        | {"relu_before_extra_convs": bool},
        only=FPN
        | {
            "type": ("FPN",),
            "in_channels": (list(backbone_config.hidden_sizes),),
            "start_level": (1,),
            "add_extra_convs": ("on_output",),
            "relu_before_extra_convs": (True,),
        },
    )
    width, levels = neck["out_channels"], neck["num_outs"]
    head = model.take(
        "bbox_head.",
        required={"num_classes": int},
        defaults={"stacked_convs": 4, "norm_cfg.num_groups": 32},
        only={
            "type": ("FCOSHead",),
            "in_channels": (width,),
            "feat_channels": (width,),
            "strides": ([8 * 2**level for level in range(levels)],),
            "norm_cfg.type": ("GN",),
            "conv_cfg": (None,),
            "conv_bias": ("auto", False),
            "dcn_on_last_conv": (False,),
            "centerness_on_reg": (False,),
            "norm_on_bbox": (False,),
            "loss_cls.type": ("FocalLoss",),
            "loss_cls.use_sigmoid": (True,),
        },
        ignored=("regress_ranges", "center_sampling", "center_sample_radius"),
    )
    test = model.take(
        "test_cfg.",
        required={"nms_pre": int, "score_thr": float, "max_per_img": int, "nms.iou_threshold": float},
        only=NMS,
        ignored=("nms.split_thr",),
    )
    centre_sampling = model.told("bbox_head.center_sampling", bool)
    return BackboneFCOSConfig(
        backbone_config=backbone_config,
        num_labels=head["num_classes"],
        fpn_channels=width,
        strided_levels=levels - len(backbone_config.out_features),
        head_convs=head["stacked_convs"],
        group_norm_groups=head["norm_cfg.num_groups"],
        score_threshold=test["score_thr"],
        candidates_per_level=test["nms_pre"],
        nms_threshold=test["nms.iou_threshold"],
        max_detections=test["max_per_img"],
        box_loss="giou" if model.told("bbox_head.loss_bbox.type", str) == "GIoULoss" else "iou",
        centre_radius=(model.told("bbox_head.center_sample_radius", float) or 1.5) if centre_sampling else None,
    )


HEAD = DetectionHead(
    model_types=("backbone_fcos",),
    title="FCOS",
    signature="bbox_head.conv_centerness.weight",
    rules=RULES,
    detectors=("FCOS",),
    build_config=_build_config,
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
    counted=("head_convs", "strided_levels"),
)
