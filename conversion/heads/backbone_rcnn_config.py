"""The `model` dict of mmdet's two-stage detectors as our `BackboneRCNNConfig`."""

from typing import Any

from transformers import PreTrainedConfig

from hf_models.configuration_backbone_rcnn import BackboneRCNNConfig
from hf_models.errors import InputError

from .mmdet import FPN, NMS, ModelDict

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


def build_config(model: ModelDict, backbone_config: PreTrainedConfig) -> BackboneRCNNConfig:
    """The config of a two-stage detector, out of the `model` dict of its config in mmdet."""
    with_norms = "neck.norm_cfg.type" in model.left
    neck = model.take(
        "neck.",
        required={"out_channels": int} | ({"use_residual": bool} if with_norms else {}),
        only=FPN
        | {
            "norm_cfg.type": ("LN",),
            "type": ("FPN_vitdet",) if with_norms else ("FPN", "FPN_vitdet"),
            "in_channels": (list(backbone_config.hidden_sizes),),
            "num_outs": (5,),
            "start_level": (0,),
            "add_extra_convs": (False,),
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
        _take_extractor(model, "mask_roi_extractor", width, side=14, finest_scale=finest_scale)
    else:
        model.leave("roi_head.mask_roi_extractor.")  # the original builds it only for a mask head
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
        **_training(model, stages),
    )


def _training(model: ModelDict, stages: int) -> dict[str, Any]:
    """What the config says of training; what it does not say becomes as in the published models."""
    numbers = [""] if stages == 1 else [f"{stage}." for stage in range(stages)]
    ious = [model.told(f"train_cfg.rcnn.{number}assigner.pos_iou_thr", float) for number in numbers]
    weights = model.told("roi_head.stage_loss_weights", list)
    border = model.all.get("train_cfg.rpn.allowed_border")
    rpn_loss, box_loss = (f"{head}loss_bbox." for head in ("rpn_head.", f"roi_head.bbox_head.{numbers[0]}"))
    beta = {"L1Loss": 0.0, "SmoothL1Loss": model.told(f"{rpn_loss}beta", float)}
    kind = {"L1Loss": "l1", "GIoULoss": "giou"}.get(model.told(f"{box_loss}type", str))
    told = {
        "rpn_train_pre_nms": model.told("train_cfg.rpn_proposal.nms_pre", int),
        "rpn_train_post_nms": model.told("train_cfg.rpn_proposal.max_per_img", int),
        "rpn_inside_anchors": {-1: False, 0: True}.get(border) if type(border) is int else None,
        "rpn_samples": model.told("train_cfg.rpn.sampler.num", int),
        "rpn_loss_beta": beta.get(model.told(f"{rpn_loss}type", str)),
        "box_samples": model.told(f"train_cfg.rcnn.{numbers[0]}sampler.num", int),
        "box_ious": None if None in ious else ious,
        "box_best_matches": model.told(f"train_cfg.rcnn.{numbers[0]}assigner.match_low_quality", bool),
        "box_loss": kind,
        "box_loss_weight": (model.told(f"{box_loss}loss_weight", float) or 1.0) if kind else None,
        "stage_weights": weights if weights and len(weights) == stages else None,
    }
    return {name: value for name, value in told.items() if value is not None}


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
        required={"roi_layer.output_size": int},
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
