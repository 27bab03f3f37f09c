"""DINO against the original: every step of it from the original's inputs, then the whole."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForObjectDetection, ConvNextConfig

from hf_models.configuration_dino_detector import DinoDetectorConfig
from hf_models.configuration_internimage import InternImageConfig
from hf_models.configuration_replknet import RepLKNetConfig
from hf_models.configuration_smt import SMTConfig
from hf_models.conversion.backbones.internimage import FAMILY
from hf_models.modeling_dino_detector import (
    DinoDetectorForObjectDetection,
    DinoDetectorOutput,
    inverse_sigmoid,
    lay_out,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "detection"
ABOUT = json.loads((FIXTURES / "det_dino_t_like.json").read_text())
IMAGES = (0, 1)
RULES = (
    (r"^neck\.convs\.(\d)\.conv", r"input_projections.\1.0"),
    (r"^neck\.convs\.(\d)\.gn", r"input_projections.\1.1"),
    (r"^neck\.extra_convs\.0\.conv", "input_projections.3.0"),
    (r"^neck\.extra_convs\.0\.gn", "input_projections.3.1"),
    (r"^bbox_head\.cls_branches\.", "class_heads."),
    (r"^bbox_head\.reg_branches\.(\d)\.0", r"box_heads.\1.0"),
    (r"^bbox_head\.reg_branches\.(\d)\.2", r"box_heads.\1.1"),
    (r"^bbox_head\.reg_branches\.(\d)\.4", r"box_heads.\1.2"),
    (r"^bbox_head\.transformer\.", ""),
    (r"^level_embeds$", "level_embed"),
    (r"\.ref_point_head\.", ".reference_head."),
    (r"^(encoder.*)\.attentions\.0\.", r"\1.self_attn."),
    (r"^(decoder.*)\.attentions\.0\.attn\.out_proj", r"\1.self_attn.o_proj"),
    (r"^(decoder.*)\.attentions\.1\.", r"\1.encoder_attn."),
    (r"^(encoder.*)\.norms\.1\.", r"\1.final_layer_norm."),
    (r"^(decoder.*)\.norms\.1\.", r"\1.encoder_attn_layer_norm."),
    (r"^(decoder.*)\.norms\.2\.", r"\1.final_layer_norm."),
    (r"\.norms\.0\.", ".self_attn_layer_norm."),
    (r"\.ffns\.0\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffns\.0\.layers\.1\.", ".mlp.fc2."),
)


def tiny_backbone(**kwargs) -> InternImageConfig:
    sizes = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 2, 1, 1], "groups": [1, 2, 4, 8], "mlp_ratio": 2.0}
    return InternImageConfig(**{**sizes, "out_features": ["stage2", "stage3", "stage4"], **kwargs})


def tiny_config(**kwargs) -> DinoDetectorConfig:
    """The sizes of the golden."""
    small = {
        "backbone_config": tiny_backbone(layer_scale_init_value=1.0),
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "group_norm_groups": 8,
        "num_queries": 30,
        "max_detections": 25,
        "num_labels": 7,
    }
    return DinoDetectorConfig(**{**small, **kwargs})


def our_weights(original: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = "backbone."
    backbone = FAMILY.rename(name.removeprefix(prefix) for name in original if name.startswith(prefix))
    ours = {prefix + new: original[prefix + old] for old, new in backbone.items()}
    for name, tensor in original.items():
        if name.startswith(prefix) or "label_embedding" in name:
            continue
        for pattern, replacement in RULES:
            name = re.sub(pattern, replacement, name)
        if ".in_proj_" in name:
            layer, leaf = re.fullmatch(r"(.*\.layers\.\d)\.attentions\.0\.attn\.in_proj_(\w+)", name).groups()
            parts = zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True)
            ours |= {f"{layer}.self_attn.{part}.{leaf}": rows for part, rows in parts}
        else:
            ours[name] = tensor
    return ours


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(FIXTURES / "det_dino_t_like.safetensors")


@pytest.fixture(scope="module")
def model(golden) -> DinoDetectorForObjectDetection:
    model = DinoDetectorForObjectDetection(tiny_config()).eval()
    weights = {name.removeprefix("weights."): tensor for name, tensor in golden.items() if name.startswith("weights.")}
    model.load_state_dict(our_weights(weights), strict=True)
    return model.requires_grad_(False)


def pixel_mask(image: int) -> torch.Tensor:
    (height, width), (valid_height, valid_width) = (
        ABOUT["images"][image][name][:2] for name in ("batch_input_shape", "img_shape")
    )
    mask = torch.zeros(1, height, width, dtype=torch.long)
    mask[:, :valid_height, :valid_width] = 1
    return mask


def assert_step(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    """Within 1e-5 of the step's maximum."""
    assert found.shape == expected.shape, name
    error, bound = (found - expected).abs().max(), 1e-5 * expected.abs().max()
    assert error <= bound, f"{name}: {error} > {bound}"


def assert_detections(output: DinoDetectorOutput, i: int, original: torch.Tensor, boxes, labels) -> None:
    height, width = original
    found = output.boxes[i] * torch.tensor([width, height, width, height])
    assert (found - boxes[:, :4]).abs().max() < 0.01
    assert (output.scores[i] - boxes[:, 4]).abs().max() < 1e-4
    assert torch.equal(output.labels[i], labels)


@pytest.mark.parametrize("image", IMAGES)
def test_every_step_is_the_originals(golden, model, image):
    step = {name.removeprefix(f"{image}."): golden[name] for name in golden if name.startswith(f"{image}.")}
    feature_maps = model.backbone(step["pixel_values"]).feature_maps
    for i, feature_map in enumerate(feature_maps, start=2):
        assert_step(feature_map, step[f"feat{i}"], f"feat{i}")

    levels = model.project([step["feat2"], step["feat3"], step["feat4"]])
    for i, level in enumerate(levels):
        assert_step(level, step[f"level{i}"], f"level{i}")

    shapes = [tuple(level.shape[2:]) for level in levels]
    layout = lay_out(shapes, pixel_mask(image), model.config.d_model)
    sizes = [rows * columns for rows, columns in shapes]
    for i in (0, 3):
        assert torch.equal(layout.valid.split(sizes, dim=1)[i], step[f"valid_mask{i}"].flatten(1))
    for i in (2, 3):
        embedding = layout.position_embeddings.split(sizes, dim=1)[i]
        assert_step(embedding, step[f"pos_embed{i}"].flatten(2).transpose(1, 2), f"pos_embed{i}")

    outputs = []
    hooks = [layer.register_forward_hook(lambda *args: outputs.append(args[2])) for layer in model.encoder.layers]
    memory = model.encode([step[f"level{i}"] for i in range(4)], layout)
    for hook in hooks:
        hook.remove()
    for i, output in enumerate(outputs):
        assert_step(output, step[f"encoder_layer{i}"], f"encoder_layer{i}")
    assert_step(memory, step["memory"], "memory")

    features, proposals = model.propose(step["memory"], layout)
    assert_step(features, step["output_memory"], "output_memory")
    assert_step(proposals.clamp(max=1e4), step["output_proposals"], "output_proposals")
    assert torch.equal(proposals.isfinite().all(-1), step["proposals_valid"] & layout.valid)
    assert_step(model.class_heads[-1](step["output_memory"]), step["encoder_scores"], "encoder_scores")
    proposals = step["output_proposals"].masked_fill(step["output_proposals"] == 1e4, torch.inf)
    boxes = model.select(step["output_memory"], proposals)
    assert_step(boxes, step["topk_anchors"], "topk_anchors")
    assert_step(boxes, step["decoder_references"][0], "decoder_references0")

    references = step["decoder_references"]
    for i in range(model.config.decoder_layers):
        states = step[f"decoder_layer{i - 1}"] if i else model.query_embed.weight[None]
        decoded = model.decoder.decode(i, states, references[i], step["memory"], layout)
        assert_step(decoded, step[f"decoder_layer{i}"], f"decoder_layer{i}")
        previous = inverse_sigmoid(references[i])
        assert_step(model.box_heads[i](step[f"decoder_layer{i}"], previous), references[i + 1], f"references{i + 1}")
        normed = model.decoder.norm(step[f"decoder_layer{i}"])
        assert_step(normed, step["decoder_states"][i], f"decoder_states{i}")
        assert_step(model.class_heads[i](step["decoder_states"][i]), step["all_logits"][i], f"all_logits{i}")
        assert_step(model.box_heads[i](step["decoder_states"][i], previous), step["all_boxes"][i], f"all_boxes{i}")
    ratios = layout.valid_ratios[:, :1].repeat(1, 1, 2)
    assert_step(model.decoder.embed_boxes(references[0] * ratios), step["query_pos0"], "query_pos0")

    best = model.best(step["all_logits"][-1], step["all_boxes"][-1])
    assert_detections(
        DinoDetectorOutput(**best), 0, ABOUT["images"][image]["ori_shape"][:2], step["det_bboxes"], step["det_labels"]
    )


@pytest.mark.parametrize("image", IMAGES)
def test_detections_are_the_originals(golden, model, image):
    output = model(golden[f"{image}.pixel_values"], pixel_mask(image))
    boxes, labels = golden[f"{image}.det_bboxes"], golden[f"{image}.det_labels"]
    assert_detections(output, 0, ABOUT["images"][image]["ori_shape"][:2], boxes, labels)
