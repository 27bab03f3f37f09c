"""Mask R-CNN and Cascade Mask R-CNN of mmdet as our `BackboneRCNNForObjectDetection`."""

import re
from typing import Any

from transformers import PreTrainedConfig

from hf_models.configuration_backbone_rcnn import BackboneRCNNConfig
from hf_models.errors import InputError

from ..mapping.facts import Facts, Shapes, count, has, size
from ..mapping.key_map import Rule
from .mmdet import DetectionHead, ModelDict


def _stage(match: re.Match) -> str:
    # the one stage of Mask R-CNN has no number in the original
    return f"{'box' if match[1] == 'bbox' else 'mask'}_heads.{match[2] or '0.'}"


RULES = (
    Rule(r"^neck\.(lateral)_convs\.(\d+)\.conv\.", r"neck.\1_convs.\2."),
    Rule(r"^neck\.fpn_convs\.(\d+)\.conv\.", r"neck.output_convs.\1."),
    Rule(r"^neck\.(lateral)_convs\.(\d+)\.ln\.", r"neck.\1_norms.\2.", optional=True),
    Rule(r"^neck\.fpn_convs\.(\d+)\.ln\.", r"neck.output_norms.\1.", optional=True),
    Rule(r"^rpn_head\.rpn_conv\.", "rpn.conv."),
    Rule(r"^rpn_head\.rpn_cls\.", "rpn.objectness."),
    Rule(r"^rpn_head\.rpn_reg\.", "rpn.deltas."),
    Rule(r"^roi_head\.(bbox|mask)_head\.(\d+\.)?", _stage),
    Rule(r"^(box_heads\.\d+)\.shared_convs\.(\d+)\.conv\.", r"\1.convs.\2.", optional=True),
    Rule(r"^(box_heads\.\d+)\.shared_convs\.(\d+)\.bn\.", r"\1.norms.\2.", optional=True),
    Rule(r"^(box_heads\.\d+)\.shared_fcs\.", r"\1.fcs."),
    Rule(r"^(box_heads\.\d+)\.fc_cls\.", r"\1.classifier."),
    Rule(r"^(box_heads\.\d+)\.fc_reg\.", r"\1.deltas."),
    Rule(r"^(mask_heads\.\d+)\.convs\.(\d+)\.conv\.", r"\1.convs.\2.", optional=True),
    Rule(r"^(mask_heads\.\d+)\.conv_logits\.", r"\1.classifier.", optional=True),
)


def _facts_of_weights(shapes: Shapes) -> Facts:
    classes = size(shapes, "box_heads.0.classifier.weight")
    with_masks = has(shapes, r"^mask_heads\.")
    return {
        "num_classes": classes and classes - 1,  # the last one is the background
        "neck.out_channels": size(shapes, "neck.output_convs.0.weight"),
        "LayerNorms in the neck": has(shapes, r"^neck\.lateral_norms\."),
        "stages": count(shapes, r"^box_heads\.(\d+)\."),
        "num_shared_convs": count(shapes, r"^box_heads\.0\.convs\.(\d+)\."),
        "num_shared_fcs": count(shapes, r"^box_heads\.0\.fcs\.(\d+)\."),
        "fc_out_channels": size(shapes, "box_heads.0.fcs.0.weight"),
        "mask_head": with_masks,
        "mask_head.num_convs": count(shapes, r"^mask_heads\.0\.convs\.(\d+)\.") if with_masks else None,
    }


def _facts_of_config(config: BackboneRCNNConfig) -> Facts:
    return {
        "num_classes": config.num_labels,
        "neck.out_channels": config.fpn_channels,
        "LayerNorms in the neck": config.fpn_norm == "layer",
        "stages": len(config.box_stds),
        "num_shared_convs": config.box_convs,
        "num_shared_fcs": config.box_fcs,
        "fc_out_channels": config.box_hidden_size,
        "mask_head": config.with_masks,
        "mask_head.num_convs": config.mask_convs,
    }


# class of a box head -> convolutions and linear layers that it has where the config does not say
BOX_HEADS = {
    "Shared2FCBBoxHead": (0, 2),
    "Shared4Conv1FCBBoxHead": (4, 1),
    "ConvFCBBoxHead": (0, 0),
    "DCNv4FCBBoxHead": (0, 0),
}


CODER = {
    "type": ("DeltaXYWHBBoxCoder",),
    "target_means": ([0, 0, 0, 0],),
    "clip_border": (True,),
    "add_ctr_clamp": (False,),
}
NMS = {"nms.type": ("nms",), "nms.class_agnostic": (False,), "min_bbox_size": (0,)}


def _build_config(model: ModelDict, backbone_config: PreTrainedConfig) -> BackboneRCNNConfig:
    with_norms = "neck.norm_cfg.type" in model.left
    neck = model.take(
        "neck.",
        required={"out_channels": int} | ({"use_residual": bool} if with_norms else {}),
        only={
            "type": ("FPN_vitdet",) if with_norms else ("FPN", "FPN_vitdet"),
            "in_channels": (list(backbone_config.hidden_sizes),),
            "num_outs": (5,),
            "start_level": (0,),
            "end_level": (-1,),
            "add_extra_convs": (False,),
            "no_norm_on_lateral": (False,),
            "conv_cfg": (None,),
            "act_cfg": (None,),
            "norm_cfg": (None,),
            "norm_cfg.type": ("LN",),
            "upsample_cfg.mode": ("nearest",),
            "use_residual": (True,),
        },
        ignored=("relu_before_extra_convs",),
    )
    width = neck["out_channels"]
    (scale,) = _take_rpn(model, width)["scales"]
    boxes = _take_box_heads(model, width)
    finest_scale = _take_extractor(model, "bbox_roi_extractor", width, side=7)
    with_masks = bool(model.sections("roi_head.mask_head."))
    mask_convs = 4
    if with_masks:
        mask_convs = _take_mask_heads(model, width, boxes["num_classes"])
        if model.sections("roi_head.mask_roi_extractor."):
            _take_extractor(model, "mask_roi_extractor", width, side=14, finest_scale=finest_scale)
    stages = len(boxes["stds"])
    model.take(
        "roi_head.",
        only={
            "type": ("StandardRoIHead",) if stages == 1 else ("CascadeRoIHead",),
            "num_stages": (stages,),
            "mask_roi_extractor": (None,),
            "mask_head": (None,),
            "shared_head": (None,),
        },
    )
    rpn = model.take(
        "test_cfg.rpn.",
        required={"nms_pre": int, "max_per_img": int, "nms.iou_threshold": float},
        only=NMS | {"nms_across_levels": (False,)},
        ignored=("nms_post", "nms.split_thr"),
    )
    test = model.take(
        "test_cfg.rcnn.",
        required={"score_thr": float, "max_per_img": int, "nms.iou_threshold": float},
        only=NMS | {"mask_thr_binary": (0.5,)},
        ignored=("nms.split_thr",),
    )
    return BackboneRCNNConfig(
        backbone_config=backbone_config,
        num_labels=boxes["num_classes"],
        fpn_channels=width,
        fpn_norm="layer" if with_norms else None,
        anchor_scale=scale,
        rpn_pre_nms=rpn["nms_pre"],
        rpn_post_nms=rpn["max_per_img"],
        rpn_nms_threshold=rpn["nms.iou_threshold"],
        roi_finest_scale=finest_scale,
        box_convs=boxes["num_shared_convs"],
        box_fcs=boxes["num_shared_fcs"],
        box_hidden_size=boxes["fc_out_channels"],
        box_stds=boxes["stds"],
        with_masks=with_masks,
        mask_convs=mask_convs,
        score_threshold=test["score_thr"],
        nms_threshold=test["nms.iou_threshold"],
        max_detections=test["max_per_img"],
    )


def _take_rpn(model: ModelDict, width: int) -> dict[str, Any]:
    """The region proposal network; `scales` holds the one scale of the anchors."""
    generator = model.take(
        "rpn_head.anchor_generator.",
        required={"scales": list},
        only={
            "type": ("AnchorGenerator",),
            "ratios": ([0.5, 1, 2],),
            "strides": ([4, 8, 16, 32, 64],),
            "base_sizes": (None,),
            "center_offset": (0,),
            "centers": (None,),
            "scale_major": (True,),
        },
    )
    if len(generator["scales"]) != 1:
        raise InputError(f"rpn_head.anchor_generator.scales={generator['scales']!r} is not supported, one scale is.")
    model.take("rpn_head.bbox_coder.", only=CODER | {"target_stds": ([1, 1, 1, 1],)})
    model.take(
        "rpn_head.",
        only={
            "type": ("RPNHead",),
            "in_channels": (width,),
            "feat_channels": (width,),
            "num_convs": (1,),
            "loss_cls.type": ("CrossEntropyLoss", "FocalLoss"),
            "loss_cls.use_sigmoid": (True,),
        },
    )
    return generator


def _take_box_heads(model: ModelDict, width: int) -> dict[str, Any]:
    """The box heads of all stages; they differ in `stds`, by which the deltas of each are multiplied."""
    path = "roi_head.bbox_head."
    stages = model.sections(path)
    coders = [model.take(f"{at}bbox_coder.", required={"target_stds": list}, only=CODER) for at in stages]
    convs, fcs = BOX_HEADS.get(model.left.get(f"{stages[0]}type"), (0, 0)) if stages else (0, 0)
    one_class = bool(stages) and model.left.get(f"{stages[0]}num_classes") == 1
    heads = model.take_equal(
        path,
        required={"num_classes": int},
        defaults={"num_shared_convs": convs, "num_shared_fcs": fcs, "fc_out_channels": 1024},
        only={
            "type": tuple(BOX_HEADS),
            "in_channels": (width,),
            "conv_out_channels": (width,),
            "roi_feat_size": (7,),
            "reg_class_agnostic": (False, one_class),  # with one class, the boxes of all are those of each
            "norm_cfg": (None,),
            "norm_cfg.type": ("BN", "SyncBN"),
            "conv_cfg": (None,),
            "with_dcn": (False,),
            "with_avg_pool": (False,),
            "with_cls": (True,),
            "with_reg": (True,),
            **dict.fromkeys(("num_cls_convs", "num_cls_fcs", "num_reg_convs", "num_reg_fcs"), (0,)),
            "loss_cls.type": ("CrossEntropyLoss",),
            "loss_cls.use_sigmoid": (False,),
        },
    )
    return heads | {"stds": [coder["target_stds"] for coder in coders]}


def _take_mask_heads(model: ModelDict, width: int, num_classes: int) -> int:
    """The mask heads of all stages; returns the number of their convolutions."""
    heads = model.take_equal(
        "roi_head.mask_head.",
        defaults={"num_convs": 4},
        only={
            "type": ("FCNMaskHead",),
            "in_channels": (width,),
            "conv_out_channels": (width,),
            "num_classes": (num_classes,),
            "class_agnostic": (False,),
            "roi_feat_size": (14,),
            "conv_kernel_size": (3,),
            "upsample_cfg.type": ("deconv",),
            "upsample_cfg.scale_factor": (2,),
            "conv_cfg": (None,),
            "norm_cfg": (None,),
            "predictor_cfg.type": ("Conv",),
        },
    )
    return heads["num_convs"]


def _take_extractor(model: ModelDict, name: str, width: int, side: int, finest_scale: int | None = None) -> int:
    """What brings the features of a region to a grid; returns the scale that decides on levels."""
    extractor = model.take_equal(
        f"roi_head.{name}.",
        defaults={"finest_scale": 56},
        only={
            "type": ("SingleRoIExtractor",),
            "roi_layer.type": ("RoIAlign",),
            "roi_layer.output_size": (side,),
            "roi_layer.sampling_ratio": (0,),
            "roi_layer.aligned": (True,),
            "roi_layer.pool_mode": ("avg",),
            "out_channels": (width,),
            "featmap_strides": ([4, 8, 16, 32],),
        }
        | ({"finest_scale": (finest_scale,)} if finest_scale else {}),
        ignored=("roi_layer.use_torchvision",),
    )
    return extractor["finest_scale"]


HEAD = DetectionHead(
    model_types=("backbone_rcnn",),
    title="R-CNN",
    signature="rpn_head.rpn_conv.weight",
    rules=RULES,
    detectors=("MaskRCNN", "CascadeRCNN", "FasterRCNN"),
    build_config=_build_config,
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
    counted=("box_convs", "box_fcs", "mask_convs"),
)
