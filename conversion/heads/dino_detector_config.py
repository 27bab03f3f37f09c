"""The `model` dict of DINO, as InternImage's code extends mmdet by it, as our `DinoDetectorConfig`."""

from typing import Any

from transformers import PreTrainedConfig

from hf_models.configuration_dino_detector import DinoDetectorConfig

from .mmdet import ModelDict

ORDERS = {
    "encoder": ["self_attn", "norm", "ffn", "norm"],
    "decoder": ["self_attn", "norm", "cross_attn", "norm", "ffn", "norm"],
}


def build_config(model: ModelDict, backbone_config: PreTrainedConfig) -> DinoDetectorConfig:
    """The config of DINO, out of the `model` dict of its original config."""
    # of the three stages that DINO sees
    widths = list(backbone_config.hidden_sizes)[1:]
    neck = model.take_equal(
        "neck.",
        required={"kernel_size": int, "out_channels": int, "act_cfg": type(None), "num_outs": int}
        | {"norm_cfg.num_groups": int},
        only={
            "type": ("ChannelMapper", "CBChannelMapper"),
            "in_channels": (widths,),
            "kernel_size": (1,),
            "act_cfg.type": (None,),
            "norm_cfg.type": ("GN",),
            "num_outs": (4,),
            "conv_cfg": (None,),
            "cb_idx": (1,),
        },
    )
    width = neck["out_channels"]
    encoder = _take_layers(model, "encoder", width)
    decoder = _take_layers(model, "decoder", width)
    model.take(
        "bbox_head.positional_encoding.",
        required={"num_feats": int, "temperature": int, "normalize": bool},
        only={
            "type": ("SinePositionalEncoding",),
            "num_feats": (width // 2,),
            "temperature": (20,),
            "normalize": (True,),
            "offset": (0,),
        },
    )
    queries = model.left.get("bbox_head.num_query")
    head = model.take(
        "bbox_head.",
        required={"num_query": int, "num_classes": int, "as_two_stage": bool, "with_box_refine": bool},
        only={
            "type": ("DINOHead", "CBDINOHead"),
            "as_two_stage": (True,),
            "with_box_refine": (True,),
            "num_reg_fcs": (2,),
            "loss_cls.type": ("FocalLoss",),
            "loss_cls.use_sigmoid": (True,),
            "transformer.type": ("DinoTransformer",),
            "transformer.num_feature_levels": (4,),
            "transformer.as_two_stage": (True,),
            "transformer.two_stage_num_proposals": (queries,),
        },
        ignored=("in_channels",),
    )
    test = model.take("test_cfg.", required={"max_per_img": int})
    return DinoDetectorConfig(
        backbone_config=backbone_config,
        num_labels=head["num_classes"],
        d_model=width,
        encoder_layers=encoder["num_layers"],
        encoder_attention_heads=encoder["num_heads"],
        encoder_ffn_dim=encoder["feedforward_channels"],
        decoder_layers=decoder["num_layers"],
        decoder_attention_heads=decoder["num_heads"],
        decoder_ffn_dim=decoder["feedforward_channels"],
        num_queries=head["num_query"],
        num_feature_levels=neck["num_outs"],
        group_norm_groups=neck["norm_cfg.num_groups"],
        max_detections=test["max_per_img"],
        **_training(model),
    )


def _training(model: ModelDict) -> dict[str, Any]:
    """What the config says of training; what it does not say becomes as in the published models."""
    denoising, assigner = "bbox_head.dn_cfg.", "train_cfg.assigner."
    told = {
        "num_denoising": model.told(f"{denoising}group_cfg.num_dn_queries", int, zero=True),
        "label_noise_ratio": model.told(f"{denoising}noise_scale.label", float, zero=True),
        "box_noise_scale": model.told(f"{denoising}noise_scale.box", float, zero=True),
        "class_cost": model.told(f"{assigner}cls_cost.weight", float, zero=True),
        "bbox_cost": model.told(f"{assigner}reg_cost.weight", float, zero=True),
        "giou_cost": model.told(f"{assigner}iou_cost.weight", float, zero=True),
        "bbox_loss_coefficient": model.told("bbox_head.loss_bbox.loss_weight", float, zero=True),
        "giou_loss_coefficient": model.told("bbox_head.loss_iou.loss_weight", float, zero=True),
        "focal_alpha": model.told("bbox_head.loss_cls.alpha", float),
    }
    return {name: value for name, value in told.items() if value is not None}


def _take_layers(model: ModelDict, part: str, width: int) -> dict[str, Any]:
    """The layers of the encoder or the decoder: `num_layers`, `num_heads` and `feedforward_channels`."""
    path = f"bbox_head.transformer.{part}."
    layer = f"{path}transformerlayers."
    attentions = model.sections(f"{layer}attn_cfgs.") or [f"{layer}attn_cfgs."]
    stated = {}
    if part == "decoder":
        among_queries = model.take(
            attentions.pop(0),
            required={"num_heads": int},
            only={"type": ("MultiheadAttention",), "embed_dims": (width,), "batch_first": (False,)},
        )
        stated = {"num_heads": (among_queries["num_heads"],)}  # one field for both
    attention = model.take(
        attentions[0] if attentions else f"{layer}attn_cfgs.1.",
        required={"type": str},
        defaults={"num_heads": 8},
        only={
            "type": ("MultiScaleDeformableAttention", "CustomMultiScaleDeformableAttention"),
            "embed_dims": (width,),
            "num_levels": (4,),
            "num_points": (4,),
            "batch_first": (False,),
            "norm_cfg": (None,),
            **stated,
        },
        ignored=("im2col_step",),
    )
    network = model.take(
        f"{layer}ffn_cfgs.",
        defaults={"feedforward_channels": 1024},
        only={
            "type": ("FFN", "EfficientFFN"),
            "embed_dims": (width,),
            "num_fcs": (2,),
            "act_cfg.type": ("ReLU",),
            "add_identity": (True,),
        },
    )
    shared = model.take(
        layer,
        defaults=network,  # what is said here overrides it
        only={
            "type": ("BaseTransformerLayer", "DetrTransformerDecoderLayer"),
            "operation_order": (ORDERS[part],),
            "ffn_num_fcs": (2,),
            "act_cfg.type": ("ReLU",),
            "norm_cfg.type": ("LN",),
            "batch_first": (False,),
        },
    )
    layers = model.take(
        path,
        required={"num_layers": int},
        only={
            "type": ("DetrTransformerEncoder",) if part == "encoder" else ("DinoTransformerDecoder",),
            "post_norm_cfg": (None,),
            "post_norm_cfg.type": ("LN",),
        },
    )
    return attention | shared | layers
