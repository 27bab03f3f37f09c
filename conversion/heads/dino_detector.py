"""DINO, as InternImage's code extends mmdet by it, as our `DinoDetectorForObjectDetection`."""

from hf_models.configuration_dino_detector import DinoDetectorConfig

from ..mapping.facts import Facts, Shapes, count, size
from ..mapping.key_map import Rule
from .dino_detector_config import build_config
from .mmdet import DetectionHead

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
    Rule(r"^bbox_head\.label_embedding\.", "label_embedding."),
    Rule(r"^bbox_head\.cls_branches\.", "class_heads."),
    Rule(r"^bbox_head\.reg_branches\.(\d+)\.(\d+)\.", lambda match: f"box_heads.{match[1]}.{int(match[2]) // 2}."),
)
FUSED = {
    f".self_attn.in_proj_{kind}": tuple(f".self_attn.{part}_proj.{kind}" for part in "qkv")
    for kind in ("weight", "bias")
}
STRIPS = {r"(?<=\.mlp\.fc1)_\d+": 0, r"(?<=\.mlp\.fc2)_\d+(?=\.weight)": 1}


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


HEAD = DetectionHead(
    model_types=("dino_detector",),
    title="DINO",
    signature="bbox_head.transformer.enc_output.weight",
    rules=RULES,
    detectors=("DINO", "CBDINO"),
    first_stage=1,
    build_config=build_config,
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
    fused=FUSED,
    strips=STRIPS,
    counted=("encoder_layers", "decoder_layers"),
)
