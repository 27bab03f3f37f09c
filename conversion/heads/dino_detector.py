"""DINO, as InternImage's code extends mmdet by it, as our `DinoDetectorForObjectDetection`."""

from typing import Any

from transformers import PreTrainedConfig

from hf_models.configuration_dino_detector import DinoDetectorConfig

from ..mapping.facts import Facts, Shapes, count, size
from ..mapping.key_map import Rule
from .mmdet import DetectionHead, ModelDict

TRANSFORMER = r"^bbox_head\.transformer\."
LAYER = r"^(encoder|decoder)\.layers\.(\d+)\."
OURS = r"\1.layers.\2."

RULES = (
    # composite backbones have a list of necks with one in it
    Rule(r"^neck\.(?:0\.)?convs\.(\d+)\.conv\.", r"input_projections.\1.0."),
    Rule(r"^neck\.(?:0\.)?convs\.(\d+)\.gn\.", r"input_projections.\1.1."),
    Rule(r"^neck\.(?:0\.)?extra_convs\.0\.conv\.", "input_projections.3.0."),
    Rule(r"^neck\.(?:0\.)?extra_convs\.0\.gn\.", "input_projections.3.1."),
    Rule(rf"{TRANSFORMER}level_embeds$", "level_embed"),
    Rule(TRANSFORMER, ""),
    Rule(r"^encoder\.layers\.(\d+)\.attentions\.0\.", r"encoder.layers.\1.self_attn."),
    Rule(r"^decoder\.layers\.(\d+)\.attentions\.0\.attn\.out_proj\.", r"decoder.layers.\1.self_attn.o_proj."),
    Rule(r"^decoder\.layers\.(\d+)\.attentions\.0\.attn\.", r"decoder.layers.\1.self_attn."),
    Rule(r"^decoder\.layers\.(\d+)\.attentions\.1\.", r"decoder.layers.\1.encoder_attn."),
    Rule(rf"{LAYER}norms\.0\.", f"{OURS}self_attn_layer_norm."),
    Rule(r"^encoder\.layers\.(\d+)\.norms\.1\.", r"encoder.layers.\1.final_layer_norm."),
    Rule(r"^decoder\.layers\.(\d+)\.norms\.1\.", r"decoder.layers.\1.encoder_attn_layer_norm."),
    Rule(r"^decoder\.layers\.(\d+)\.norms\.2\.", r"decoder.layers.\1.final_layer_norm."),
    Rule(rf"{LAYER}ffns\.0\.layers\.0\.0\.", f"{OURS}mlp.fc1.", optional=True),
    Rule(rf"{LAYER}ffns\.0\.layers\.1\.", f"{OURS}mlp.fc2.", optional=True),
    # InternImage-G's feed-forward networks are cut into strips, to save memory
    Rule(rf"{LAYER}ffns\.0\.fc2_bias$", f"{OURS}mlp.fc2.bias", optional=True),
    Rule(rf"{LAYER}ffns\.0\.", f"{OURS}mlp.", optional=True),
    Rule(r"^decoder\.ref_point_head\.", "decoder.reference_head."),
    Rule(r"^bbox_head\.cls_branches\.", "class_heads."),
    Rule(r"^bbox_head\.reg_branches\.(\d+)\.(\d+)\.", lambda match: f"box_heads.{match[1]}.{int(match[2]) // 2}."),
)
FUSED = {
    f".self_attn.in_proj_{kind}": tuple(f".self_attn.{part}_proj.{kind}" for part in "qkv")
    for kind in ("weight", "bias")
}
STRIPS = {r"(?<=\.mlp\.fc1)_\d+": 0, r"(?<=\.mlp\.fc2)_\d+(?=\.weight)": 1}
DROPPED = {r"^bbox_head\.label_embedding\.": "only training uses it, to denoise labels"}


def _facts_of_weights(shapes: Shapes) -> Facts:
    levels = count(shapes, r"^input_projections\.(\d+)\.")

    def heads(attention: str) -> int | None:
        # 4 points in each level
        rows = size(shapes, f"{attention}.attention_weights.weight")
        return rows and rows // (4 * levels or 1)

    return {
        "num_classes": size(shapes, "class_heads.0.weight"),
        "neck.out_channels": size(shapes, "input_projections.0.0.weight"),
        "neck.num_outs": levels,
        "num_query": size(shapes, "query_embed.weight"),
        "encoder.num_layers": count(shapes, r"^encoder\.layers\.(\d+)\."),
        "encoder num_heads": heads("encoder.layers.0.self_attn"),
        "encoder feedforward_channels": size(shapes, "encoder.layers.0.mlp.fc1.weight"),
        "decoder.num_layers": count(shapes, r"^decoder\.layers\.(\d+)\."),
        "decoder num_heads": heads("decoder.layers.0.encoder_attn"),
        "decoder feedforward_channels": size(shapes, "decoder.layers.0.mlp.fc1.weight"),
    }


def _facts_of_config(config: DinoDetectorConfig) -> Facts:
    return {
        "num_classes": config.num_labels,
        "neck.out_channels": config.d_model,
        "neck.num_outs": config.num_feature_levels,
        "num_query": config.num_queries,
        "encoder.num_layers": config.encoder_layers,
        "encoder num_heads": config.encoder_attention_heads,
        "encoder feedforward_channels": config.encoder_ffn_dim,
        "decoder.num_layers": config.decoder_layers,
        "decoder num_heads": config.decoder_attention_heads,
        "decoder feedforward_channels": config.decoder_ffn_dim,
    }


def _build_config(model: ModelDict, backbone_config: PreTrainedConfig) -> DinoDetectorConfig:
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
    )


ORDERS = {
    "encoder": ["self_attn", "norm", "ffn", "norm"],
    "decoder": ["self_attn", "norm", "cross_attn", "norm", "ffn", "norm"],
}


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
        attentions[0],
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


HEAD = DetectionHead(
    model_types=("dino_detector",),
    title="DINO",
    signature="bbox_head.transformer.enc_output.weight",
    rules=RULES,
    detectors=("DINO", "CBDINO"),
    first_stage=1,
    build_config=_build_config,
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
    fused=FUSED,
    strips=STRIPS,
    dropped=DROPPED,
    counted=("encoder_layers", "decoder_layers"),
)
