"""SMT: names and arguments of https://github.com/AFeng-x/SMT."""

import re

from hf_models.configuration_smt import SMTConfig
from hf_models.errors import InputError
from hf_models.modeling_smt import SMTForImageClassification

from ..mapping.arguments import arguments
from ..mapping.facts import Facts, Shapes, by_stage, depths, has, size
from ..mapping.key_map import Rule
from .family import Family


def _stage(template: str):
    # the original counts stages from 1, we from 0
    return lambda match: template.format(int(match[1]) - 1)


RULES = (
    Rule(r"^patch_embed1\.conv\.0\.", "embeddings.conv1."),
    Rule(r"^patch_embed1\.conv\.1\.", "embeddings.batch_norm."),
    Rule(r"^patch_embed1\.conv\.3\.", "embeddings.conv2."),
    Rule(r"^patch_embed1\.norm\.", "embeddings.norm."),
    Rule(r"^patch_embed(\d+)\.proj\.", _stage("encoder.stages.{}.downsample.conv.")),
    Rule(r"^patch_embed(\d+)\.norm\.", _stage("encoder.stages.{}.downsample.norm.")),
    Rule(r"^block(\d+)\.", _stage("encoder.stages.{}.layers.")),
    Rule(r"^norm(\d+)\.", _stage("encoder.stages.{}.norm.")),
    Rule(r"\.gamma_([12])$", r".layer_scale\1.scale", optional=True),
    Rule(r"\.attn\.v\.", ".mixer.value.", optional=True),
    Rule(r"\.attn\.s\.", ".mixer.context.", optional=True),
    Rule(r"\.attn\.local_conv_(\d+)\.", lambda match: f".mixer.head_convs.{int(match[1]) - 1}.", optional=True),
    Rule(r"\.attn\.proj0\.", ".mixer.expand.", optional=True),
    Rule(r"\.attn\.bn\.", ".mixer.batch_norm.", optional=True),
    Rule(r"\.attn\.proj1\.", ".mixer.reduce.", optional=True),
    Rule(r"\.attn\.q\.", ".mixer.query.", optional=True),
    Rule(r"\.attn\.kv\.", ".mixer.key_value.", optional=True),
    # the detection and segmentation code of the original says dw_conv
    Rule(r"\.attn\.(?:local_conv|dw_conv)\.", ".mixer.local_conv.", optional=True),
    Rule(r"\.attn\.proj\.", ".mixer.projection."),
    Rule(r"\.mlp\.dwconv\.dwconv\.", ".mlp.depthwise_conv."),
    Rule(r"^head\.", "classifier.", optional=True),
)


def _stage_types(shapes: Shapes) -> list[str]:
    """Token mixers of each stage: those of its first two layers tell."""
    kinds = {"modulation": "value", "attention": "query"}
    types = []
    for stage in range(len(depths(shapes))):
        layers = rf"^encoder\.stages\.{stage}\.layers\.\d+\.mixer\."
        found = [kind for kind, part in kinds.items() if has(shapes, rf"{layers}{part}\.")]
        types.append("alternating" if len(found) == 2 else "".join(found))
    return types


def _facts_of_weights(shapes: Shapes) -> Facts:
    found = depths(shapes)
    expanded = size(shapes, "encoder.stages.0.layers.0.mixer.expand.weight")
    channels = [size(shapes, f"encoder.stages.{stage}.norm.weight") for stage in range(len(found))]
    heads = {match[1] for name in shapes if (match := re.search(r"\.layers\.0\.mixer\.head_convs\.(\d+)\.", name))}
    return {
        "embed_dims": channels,
        "depths": found,
        "mlp widths": by_stage(shapes, "layers.0.mlp.fc1.weight"),
        "head_conv": size(shapes, "embeddings.conv1.weight", axis=-1),
        "token mixers": _stage_types(shapes),
        "ca_num_heads": len(heads) or None,
        "expand_ratio": expanded // channels[0] if expanded and channels[0] else None,
        "qkv_bias": has(shapes, r"\.mixer\.(?:value|query)\.bias$"),
        "use_layerscale": has(shapes, r"\.layer_scale1\.scale$"),
        "num_classes": size(shapes, "classifier.weight"),
    }


def _facts_of_config(config: SMTConfig) -> Facts:
    # a stage of one layer cannot show that it would alternate
    types = zip(config.stage_types, config.depths, strict=True)
    return {
        "embed_dims": list(config.hidden_sizes),
        "depths": list(config.depths),
        "mlp widths": [int(w * r) for w, r in zip(config.hidden_sizes, config.mlp_ratios, strict=True)],
        "head_conv": config.stem_kernel_size,
        "token mixers": ["modulation" if t == "alternating" and depth == 1 else t for t, depth in types],
        "ca_num_heads": config.num_modulation_heads,
        "expand_ratio": config.expand_ratio,
        "qkv_bias": config.qkv_bias,
        "use_layerscale": config.layer_scale_init_value is not None,
        "num_classes": config.num_labels,
    }


def _config_from_original(original: dict, shown: Facts) -> SMTConfig:
    given = arguments(
        original,
        required=dict.fromkeys(("embed_dims", "depths", "ca_num_heads", "sa_num_heads", "mlp_ratios"), list),
        defaults={
            "num_classes": 1000,
            "img_size": 224,
            "in_chans": 3,
            "qkv_bias": True,
            "ca_attentions": [1, 1, 1, 0],
            "head_conv": 3,
            "expand_ratio": 2,
            "use_layerscale": shown["use_layerscale"],
            "layerscale_value": 1e-4,
            "drop_rate": 0.0,
            "attn_drop_rate": 0.0,
            "drop_path_rate": 0.0,
        },
        only={"num_stages": (4,), "qk_scale": (None,)},
    )
    # the original alternates in its third stage only
    types = ["modulation" if modulates else "attention" for modulates in given["ca_attentions"]]
    types = ["alternating" if stage == 2 and t == "modulation" else t for stage, t in enumerate(types)]
    heads = {n for n, t in zip(given["ca_num_heads"], types, strict=True) if t != "attention"}
    if len(heads) > 1:
        raise InputError(
            f"ca_num_heads={given['ca_num_heads']} is not supported: one number of heads for all stages is."
        )
    return SMTConfig(
        num_labels=given["num_classes"],
        image_size=given["img_size"],
        num_channels=given["in_chans"],
        hidden_sizes=given["embed_dims"],
        depths=given["depths"],
        stage_types=types,
        num_modulation_heads=heads.pop() if heads else 4,
        # -1 where a stage has no attention
        num_attention_heads=[max(n, 1) for n in given["sa_num_heads"]],
        expand_ratio=given["expand_ratio"],
        mlp_ratios=given["mlp_ratios"],
        stem_kernel_size=given["head_conv"],
        qkv_bias=given["qkv_bias"],
        layer_scale_init_value=given["layerscale_value"] if given["use_layerscale"] else None,
        hidden_dropout_prob=given["drop_rate"],
        attention_probs_dropout_prob=given["attn_drop_rate"],
        drop_path_rate=given["drop_path_rate"],
    )


FAMILY = Family(
    model_class=SMTForImageClassification,
    signature="patch_embed1.conv.0.weight",
    rules=RULES,
    config_from_original=_config_from_original,
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
    counted=("depths", "num_modulation_heads"),
)
