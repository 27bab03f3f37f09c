"""The Mask2Former head of the originals as transformers' `Mask2FormerForUniversalSegmentation`."""

import torch
from transformers import Mask2FormerConfig

from hf_models.errors import InputError

from ..mapping.arguments import arguments
from ..mapping.facts import Facts, Shapes, count, size
from ..mapping.key_map import Rule
from .head import stage_indices
from .mmseg import SegmentationHead

PIXELS = "model.pixel_level_module.decoder."
QUERIES = "model.transformer_module."
PIXEL_LAYER = rf"{PIXELS}encoder.layers.\1."
QUERY_LAYER = rf"{QUERIES}decoder.layers.\1."

RULES = (
    # pixel decoder: from the lowest resolution to the highest here and there
    Rule(r"^decode_head\.pixel_decoder\.input_convs\.(\d+)\.conv\.", rf"{PIXELS}input_projections.\1.0."),
    Rule(r"^decode_head\.pixel_decoder\.input_convs\.(\d+)\.gn\.", rf"{PIXELS}input_projections.\1.1."),
    Rule(r"^decode_head\.pixel_decoder\.level_encoding\.weight$", f"{PIXELS}level_embed"),
    Rule(r"^decode_head\.pixel_decoder\.encoder\.layers\.(\d+)\.attentions\.0\.", f"{PIXEL_LAYER}self_attn."),
    Rule(r"^decode_head\.pixel_decoder\.encoder\.layers\.(\d+)\.norms\.0\.", f"{PIXEL_LAYER}self_attn_layer_norm."),
    Rule(r"^decode_head\.pixel_decoder\.encoder\.layers\.(\d+)\.norms\.1\.", f"{PIXEL_LAYER}final_layer_norm."),
    Rule(r"^decode_head\.pixel_decoder\.encoder\.layers\.(\d+)\.ffns\.0\.layers\.0\.0\.", f"{PIXEL_LAYER}fc1."),
    Rule(r"^decode_head\.pixel_decoder\.encoder\.layers\.(\d+)\.ffns\.0\.layers\.1\.", f"{PIXEL_LAYER}fc2."),
    Rule(r"^decode_head\.pixel_decoder\.lateral_convs\.0\.conv\.", f"{PIXELS}adapter_1.0."),
    Rule(r"^decode_head\.pixel_decoder\.lateral_convs\.0\.gn\.", f"{PIXELS}adapter_1.1."),
    Rule(r"^decode_head\.pixel_decoder\.output_convs\.0\.conv\.", f"{PIXELS}layer_1.0."),
    Rule(r"^decode_head\.pixel_decoder\.output_convs\.0\.gn\.", f"{PIXELS}layer_1.1."),
    Rule(r"^decode_head\.pixel_decoder\.mask_feature\.", f"{PIXELS}mask_projection."),
    # transformer decoder: cross attention, self attention, feed-forward network
    Rule(r"^decode_head\.query_feat\.", f"{QUERIES}queries_features."),
    Rule(r"^decode_head\.query_embed\.", f"{QUERIES}queries_embedder."),
    Rule(r"^decode_head\.level_embed\.", f"{QUERIES}level_embed."),
    Rule(r"^decode_head\.transformer_decoder\.layers\.(\d+)\.attentions\.0\.attn\.", f"{QUERY_LAYER}cross_attn."),
    Rule(r"^decode_head\.transformer_decoder\.layers\.(\d+)\.attentions\.1\.attn\.", f"{QUERY_LAYER}self_attn."),
    Rule(r"^decode_head\.transformer_decoder\.layers\.(\d+)\.norms\.0\.", f"{QUERY_LAYER}cross_attn_layer_norm."),
    Rule(r"^decode_head\.transformer_decoder\.layers\.(\d+)\.norms\.1\.", f"{QUERY_LAYER}self_attn_layer_norm."),
    Rule(r"^decode_head\.transformer_decoder\.layers\.(\d+)\.norms\.2\.", f"{QUERY_LAYER}final_layer_norm."),
    Rule(r"^decode_head\.transformer_decoder\.layers\.(\d+)\.ffns\.0\.layers\.0\.0\.", f"{QUERY_LAYER}fc1."),
    Rule(r"^decode_head\.transformer_decoder\.layers\.(\d+)\.ffns\.0\.layers\.1\.", f"{QUERY_LAYER}fc2."),
    Rule(r"^decode_head\.transformer_decoder\.post_norm\.", f"{QUERIES}decoder.layernorm."),
    Rule(
        r"^decode_head\.mask_embed\.(\d+)\.",
        lambda match: f"{QUERIES}decoder.mask_predictor.mask_embedder.{int(match[1]) // 2}.0.",
    ),
    Rule(r"^decode_head\.cls_embed\.", "class_predictor."),
)
# the cross attention stays fused in transformers
FUSED = {
    f".self_attn.in_proj_{kind}": tuple(f".self_attn.{part}_proj.{kind}" for part in "qkv")
    for kind in ("weight", "bias")
}
DROPPED = {r"^decode_head\.conv_seg\.": "mmseg gives every head this layer; Mask2Former does not use it"}


def _facts_of_weights(shapes: Shapes) -> Facts:
    # 3 levels with 4 points each
    points = size(shapes, f"{PIXELS}encoder.layers.0.self_attn.attention_weights.weight")
    classes = size(shapes, "class_predictor.weight")
    return {
        "num_classes": classes and classes - 1,
        "feat_channels": size(shapes, f"{QUERIES}queries_features.weight", axis=1),
        "out_channels": size(shapes, f"{PIXELS}mask_projection.weight"),
        "num_heads": points and points // 12,
        "num_queries": size(shapes, f"{QUERIES}queries_features.weight"),
        "pixel decoder layers": count(shapes, rf"^{PIXELS}encoder\.layers\.(\d+)\."),
        "pixel decoder feedforward_channels": size(shapes, f"{PIXELS}encoder.layers.0.fc1.weight"),
        "decoder layers": count(shapes, rf"^{QUERIES}decoder\.layers\.(\d+)\."),
        "decoder feedforward_channels": size(shapes, f"{QUERIES}decoder.layers.0.fc1.weight"),
    }


def _facts_of_config(config: Mask2FormerConfig) -> Facts:
    return {
        "num_classes": config.num_labels,
        "feat_channels": config.hidden_dim,
        "out_channels": config.mask_feature_size,
        "num_heads": config.num_attention_heads,
        "num_queries": config.num_queries,
        "pixel decoder layers": config.encoder_layers,
        "pixel decoder feedforward_channels": config.encoder_feedforward_dim,
        # transformers counts the predictions, of which one comes before the first layer
        "decoder layers": config.decoder_layers - 1,
        "decoder feedforward_channels": config.dim_feedforward,
    }


ENCODER = "decode_head.pixel_decoder.encoder."
DECODER = "decode_head.transformer_decoder."
POSITIONS = ("decode_head.positional_encoding.", "decode_head.pixel_decoder.positional_encoding.")
ENCODER_ATTENTION = f"{ENCODER}transformerlayers.attn_cfgs."
ENCODER_FFN = f"{ENCODER}transformerlayers.ffn_cfgs."
DECODER_ATTENTION = f"{DECODER}transformerlayers.attn_cfgs."
DECODER_FFN = f"{DECODER}transformerlayers.ffn_cfgs."
ONLY = {
    "decode_head.type": ("Mask2FormerHead",),
    "decode_head.num_transformer_feat_level": (3,),
    "decode_head.enforce_decoder_input_project": (False,),
    "decode_head.align_corners": (False,),
    "decode_head.pixel_decoder.type": ("MSDeformAttnPixelDecoder",),
    "decode_head.pixel_decoder.num_outs": (3,),
    "decode_head.pixel_decoder.norm_cfg.type": ("GN",),
    "decode_head.pixel_decoder.norm_cfg.num_groups": (32,),
    "decode_head.pixel_decoder.act_cfg.type": ("ReLU",),
    f"{ENCODER}type": ("DetrTransformerEncoder",),
    f"{ENCODER}transformerlayers.type": ("BaseTransformerLayer",),
    f"{ENCODER}transformerlayers.operation_order": (["self_attn", "norm", "ffn", "norm"],),
    f"{ENCODER_ATTENTION}type": ("MultiScaleDeformableAttention", "CustomMultiScaleDeformableAttention"),
    f"{ENCODER_ATTENTION}num_levels": (3,),
    f"{ENCODER_ATTENTION}num_points": (4,),
    f"{ENCODER_ATTENTION}use_softmax": (True,),
    f"{ENCODER_ATTENTION}norm_cfg": (None,),
    f"{ENCODER_FFN}type": ("FFN",),
    f"{DECODER}type": ("DetrTransformerDecoder",),
    f"{DECODER}return_intermediate": (True,),
    f"{DECODER}transformerlayers.type": ("DetrTransformerDecoderLayer",),
    f"{DECODER}transformerlayers.operation_order": (["cross_attn", "norm", "self_attn", "norm", "ffn", "norm"],),
    f"{DECODER_ATTENTION}type": ("MultiheadAttention",),
    **{f"{ffn}num_fcs": (2,) for ffn in (ENCODER_FFN, DECODER_FFN)},
    **{f"{ffn}act_cfg.type": ("ReLU",) for ffn in (ENCODER_FFN, DECODER_FFN)},
    **{f"{ffn}add_identity": (True,) for ffn in (ENCODER_FFN, DECODER_FFN)},
    **{f"{positions}type": ("SinePositionalEncoding",) for positions in POSITIONS},
    **{f"{positions}normalize": (True,) for positions in POSITIONS},
}
# what says the same again, or concerns memory, dropout and the order of dimensions
IGNORED = (
    *(f"decode_head.num_{kind}_classes" for kind in ("things", "stuff")),
    *(f"{attention}{name}" for attention in (ENCODER_ATTENTION, DECODER_ATTENTION) for name in ("dropout_layer",)),
    *(f"{DECODER_ATTENTION}{name}" for name in ("embed_dims", "attn_drop", "proj_drop", "batch_first")),
    *(f"{ENCODER_ATTENTION}{name}" for name in ("embed_dims", "im2col_step", "dropout", "batch_first", "use_flash")),
    *(
        f"{ffn}{name}"
        for ffn in (ENCODER_FFN, DECODER_FFN)
        for name in ("embed_dims", "ffn_drop", "dropout_layer", "with_cp", "act_cfg.inplace")
    ),
    f"{DECODER}transformerlayers.feedforward_channels",
    "decode_head.pixel_decoder.act_cfg.inplace",
    "decode_head.ignore_index",
)


def _build_config(original: dict, shared: dict) -> Mask2FormerConfig:
    given = arguments(
        original,
        required={
            "decode_head.in_channels": list,
            "decode_head.num_classes": int,
            **{f"decode_head.{name}": int for name in ("feat_channels", "out_channels", "num_queries")},
            **{f"{part}num_layers": int for part in (ENCODER, DECODER)},
            **{f"{ffn}feedforward_channels": int for ffn in (ENCODER_FFN, DECODER_FFN)},
            **{f"{attention}num_heads": int for attention in (ENCODER_ATTENTION, DECODER_ATTENTION)},
            **{f"{positions}num_feats": int for positions in POSITIONS},
        },
        defaults={},
        only={
            "decode_head.in_index": (stage_indices(shared["backbone_config"]),),
            "decode_head.strides": (shared["backbone_config"].stage_strides[1:],),
            **ONLY,
        },
        ignored=IGNORED,
    )
    width, heads = given["decode_head.feat_channels"], given[f"{ENCODER_ATTENTION}num_heads"]
    # one field for both in transformers
    agreeing = {f"{DECODER_ATTENTION}num_heads": heads} | {f"{p}num_feats": width // 2 for p in POSITIONS}
    for name, value in agreeing.items():
        if given[name] != value:
            raise InputError(f"{name}={given[name]} is not supported beside the others, only {value} is.")
    return Mask2FormerConfig(
        num_labels=given["decode_head.num_classes"],
        feature_size=width,
        hidden_dim=width,
        mask_feature_size=given["decode_head.out_channels"],
        num_attention_heads=heads,
        num_queries=given["decode_head.num_queries"],
        encoder_layers=given[f"{ENCODER}num_layers"],
        encoder_feedforward_dim=given[f"{ENCODER_FFN}feedforward_channels"],
        decoder_layers=given[f"{DECODER}num_layers"] + 1,
        dim_feedforward=given[f"{DECODER_FFN}feedforward_channels"],
        **shared,
    )


def _constants(config: Mask2FormerConfig) -> dict[str, torch.Tensor]:
    """The weights of the classes in the loss, which the model stores."""
    weights = torch.ones(config.num_labels + 1)
    weights[-1] = config.no_object_weight
    return {"criterion.empty_weight": weights}


HEAD = SegmentationHead(
    model_types=("mask2former",),
    title="Mask2Former",
    signature="decode_head.query_feat.weight",
    rules=RULES,
    backbone_prefix="model.pixel_level_module.encoder.",
    build_config=_build_config,
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
    fused=FUSED,
    dropped=DROPPED,
    constants=_constants,
    counted=("encoder_layers", "decoder_layers"),
)
