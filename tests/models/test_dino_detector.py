"""DINO against the original: every step of it from the original's inputs, then the whole."""

import copy
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForObjectDetection

from hf_models.configuration_dino_detector import DinoDetectorConfig
from hf_models.configuration_internimage import InternImageConfig
from hf_models.conversion.backbones.internimage import FAMILY
from hf_models.modeling_dino_detector import (
    DinoDetectorForObjectDetection,
    DinoDetectorOutput,
    inverse_sigmoid,
    lay_out,
)

from ..harness.hub_tester import pixels, run_client

STAGES = ["stage2", "stage3", "stage4"]
FIXTURES = Path(__file__).parents[1] / "fixtures" / "detection"
ABOUT = json.loads((FIXTURES / "det_dino_t_like.json").read_text())
IMAGES = (0, 1)
RULES = (
    (r"^neck\.convs\.(\d)\.conv", r"input_projections.\1.0"),
    (r"^neck\.convs\.(\d)\.gn", r"input_projections.\1.1"),
    (r"^neck\.extra_convs\.0\.conv", "input_projections.3.0"),
    (r"^neck\.extra_convs\.0\.gn", "input_projections.3.1"),
    (r"^bbox_head\.label_embedding\.", "label_embedding."),
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
    return InternImageConfig(**{**sizes, "out_features": STAGES, **kwargs})


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
        if name.startswith(prefix):
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
    layout = lay_out(shapes, pixel_mask(image), model.level_embed)
    sizes = [rows * columns for rows, columns in shapes]
    for i in (0, 3):
        assert torch.equal(layout.valid.split(sizes, dim=1)[i], step[f"valid_mask{i}"].flatten(1))
    for i in (2, 3):
        embedding = layout.position_embeddings.split(sizes, dim=1)[i] - model.level_embed[i]
        assert_step(embedding, step[f"pos_embed{i}"].flatten(2).transpose(1, 2), f"pos_embed{i}")

    outputs = []
    hooks = [layer.register_forward_hook(lambda *args: outputs.append(args[2])) for layer in model.encoder.layers]
    tokens = torch.cat([step[f"level{i}"].flatten(2).transpose(1, 2) for i in range(4)], dim=1)
    memory = model.encoder(tokens, layout)
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
    logits, boxes = model.select(step["output_memory"], proposals)
    assert_step(logits, step["topk_logits"], "topk_logits")
    assert_step(boxes, step["topk_anchors"], "topk_anchors")
    assert_step(boxes, step["decoder_references"][0], "decoder_references0")

    references = step["decoder_references"]
    for i in range(model.config.decoder_layers):
        states = step[f"decoder_layer{i - 1}"] if i else model.query_embed.weight[None]
        decoded = model.decoder(i, states, references[i], step["memory"], layout)
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


def test_a_batch_is_the_originals(golden, model):
    """Each image is one of another size: the padding is left out of everything but the backbone."""
    batch = load_file(FIXTURES / "det_batch.safetensors")
    pixel_values = batch["det_dino_t_like.pixel_values"]
    mask = torch.zeros(len(IMAGES), *pixel_values.shape[2:], dtype=torch.bool)
    for image in IMAGES:
        height, width = ABOUT["images"][image]["img_shape"][:2]
        mask[image, :height, :width] = True
    output = model(pixel_values, mask)
    for image in IMAGES:
        boxes, labels = (batch[f"det_dino_t_like.{image}.{name}"] for name in ("det_bboxes", "det_labels"))
        assert_detections(output, image, ABOUT["images"][image]["ori_shape"][:2], boxes, labels)


def images(batch_size=2, height=64, width=96, seed=1) -> torch.Tensor:
    return torch.randn(batch_size, 3, height, width, generator=torch.Generator().manual_seed(seed))


def random_model(seed=0, **kwargs) -> DinoDetectorForObjectDetection:
    """A model whose offsets move and whose branches all contribute."""
    torch.manual_seed(seed)
    model = DinoDetectorForObjectDetection(tiny_config(**kwargs)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return model


def test_outputs(golden, model):
    output = model(golden["0.pixel_values"], pixel_mask(0), output_hidden_states=True)
    assert output.scores.shape == output.labels.shape == (1, 25) and output.boxes.shape == (1, 25, 4)
    assert output.logits.shape == (1, 30, 7) and output.pred_boxes.shape == (1, 30, 4)
    assert output.loss is None and output.masks is None
    assert (output.scores.diff() <= 0).all() and (output.boxes >= 0).all() and (output.boxes <= 1).all()
    assert [hidden.shape[1] for hidden in output.hidden_states] == [16, 16, 32, 64, 128]
    again = DinoDetectorOutput({"target_size": torch.tensor([[70, 101]]), **output})  # as pipelines do
    assert torch.equal(again["boxes"], output.boxes)
    scores, *_ = model(golden["0.pixel_values"], pixel_mask(0), return_dict=False)
    assert torch.equal(scores, output.scores)


def test_without_a_mask_all_is_image():
    model, pixel_values = random_model(), images()
    expected = model(pixel_values, torch.ones(2, 64, 96, dtype=torch.long))
    torch.testing.assert_close(model(pixel_values).pred_boxes, expected.pred_boxes, rtol=0, atol=0)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"pixel_mask: expected \(2, 64, 96\), got \(1, 64, 96\)"):
        random_model()(images(), torch.ones(1, 64, 96))


def test_impossible_configurations_are_refused():
    with pytest.raises(ValueError, match=r"the backbone gives 3 feature maps .* more than the 2 levels"):
        DinoDetectorForObjectDetection(tiny_config(num_feature_levels=2))
    with pytest.raises(ValueError, match="max_detections must be at most 30 queries times 7 classes, got 211"):
        tiny_config(max_detections=211)
    with pytest.raises(ValueError, match="num_denoising must not be negative, got -1"):
        tiny_config(num_denoising=-1)


def test_the_default_is_internimage_t():
    config = DinoDetectorConfig(num_labels=80)
    assert config.backbone_config.model_type == "internimage" and config.backbone_config.out_features == STAGES
    config.backbone_config.layer_scale_init_value = 1.0  # as in the published detector
    with torch.device("meta"):
        model = AutoModelForObjectDetection.from_config(config)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) == 48_736_828


BACKBONES = {
    "internimage_g": {
        **{"model_type": "internimage", "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 4, 1]},
        **{
            "groups": [1, 2, 4, 8],
            "post_norm": True,
            "center_feature_scale": True,
            "intermediate_norm_layers": [1, 3],
        },
    },
    "flash_internimage": {"hidden_sizes": [32, 64, 128, 256], "depths": [1, 1, 1, 1], "groups": [2, 4, 8, 16]},
    "smt": {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1], "num_attention_heads": [1, 1, 4, 8]},
    "replknet": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "kernel_sizes": [31, 29, 27, 13]},
    "cb_internimage": {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "groups": [1, 2, 4, 8]},
    "convnext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
}


@pytest.mark.parametrize("name", BACKBONES)
def test_any_backbone(name, tmp_path):
    model = random_model(
        backbone_config=AutoConfig.for_model(**{"model_type": name, **BACKBONES[name], "out_features": STAGES})
    )
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and type(loaded) is DinoDetectorForObjectDetection
    with torch.inference_mode():
        output = model(images())
        assert output.logits.isfinite().all()
        torch.testing.assert_close(loaded(images()).logits, output.logits)


def test_a_repository_works_without_the_package(tmp_path):
    """Its code brings the model, and initialises anew what is not loaded."""
    model = random_model(backbone_config=tiny_backbone())
    model.save_pretrained(tmp_path / "model")
    case = {"class": "AutoModelForObjectDetection", "id": str(tmp_path / "model")}
    cases = [{**case, "name": "dino", "kwargs": {"trust_remote_code": True}}]
    told, outputs = run_client(tmp_path / "client", {"HF_HOME": str(tmp_path)}, cases, absent=["hf_models"])
    assert told["results"][0]["module"].startswith("transformers_modules.") and not told["results"][0]["problems"]
    with torch.inference_mode():
        torch.testing.assert_close(outputs["dino/logits"], model(pixels()).logits, rtol=1e-5, atol=1e-5)


def test_new_classes(tmp_path):
    model = random_model()
    model.save_pretrained(tmp_path)
    new = AutoModelForObjectDetection.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    assert new(images()).logits.shape == (2, 30, 3)
    kept = new.state_dict()
    for name, tensor in model.state_dict().items():
        if not name.startswith(("class_heads.", "label_embedding.")):
            assert torch.equal(kept[name], tensor), name
    assert 0.01 < kept["class_heads.0.weight"].std() < 0.03 and 0.5 < kept["label_embedding.weight"].std() < 1.5
    torch.testing.assert_close(kept["class_heads.0.bias"].sigmoid(), torch.full((3,), 0.01))


def test_initialisation():
    """Heads look into directions of their own, each point one pixel further; boxes stay, and classes are rare."""
    torch.manual_seed(0)
    model = DinoDetectorForObjectDetection(tiny_config())
    for attention in (model.encoder.layers[0].self_attn, model.decoder.layers[1].encoder_attn):
        assert not attention.sampling_offsets.weight.any() and not attention.attention_weights.weight.any()
        offsets = attention.sampling_offsets.bias.view(4, 4, 4, 2)  # heads, levels, points, (x, y)
        torch.testing.assert_close(offsets[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]))
        torch.testing.assert_close(offsets[1, 2, 3], torch.tensor([0.0, 4]))
    for parameter in (model.level_embed, model.query_embed.weight, model.label_embedding.weight):
        assert 0.8 < parameter.std() < 1.2
    output = model(images())
    assert 0.005 < output.scores.mean() < 0.02
    assert all(not head[-1].weight.any() and head[0].weight.any() for head in model.box_heads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_boxes_in_float32(golden, model, dtype):
    """A layer errs as its weights and states do, and boxes are never rounded."""
    half = copy.deepcopy(model).to(dtype)
    output = half(golden["0.pixel_values"].to(dtype), pixel_mask(0))
    assert output.logits.dtype == dtype and output.pred_boxes.dtype == output.scores.dtype == torch.float32
    shapes = [(12, 16), (6, 8), (3, 4), (2, 2)]
    layout = lay_out(shapes, pixel_mask(0), model.level_embed)
    states, boxes = golden["0.decoder_layer0"], golden["0.decoder_references"][1]
    expected = model.decoder(1, states, boxes, golden["0.memory"], layout)
    found = half.decoder(1, states.to(dtype), boxes, golden["0.memory"].to(dtype), layout)
    assert found.dtype == dtype
    assert (found - expected).abs().max() < 4 * torch.finfo(dtype).eps * expected.abs().max()
    with torch.autocast("cpu", dtype):
        output = model(golden["0.pixel_values"], pixel_mask(0))
    assert output.pred_boxes.dtype == torch.float32 and output.scores.isfinite().all()


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match any submodules")  # of a bare parameter
def test_places(tmp_path):
    """On one device by a map, and from the disk layer by layer."""
    model = random_model()
    model.save_pretrained(tmp_path)
    expected = model(images()).pred_boxes
    places = {name: "disk" for name, _ in model.named_children()} | {"backbone": "cpu", "level_embed": "cpu"}
    for device_map in ("cpu", places):
        mapped = AutoModelForObjectDetection.from_pretrained(
            tmp_path, device_map=device_map, offload_folder=tmp_path / "offload"
        )
        torch.testing.assert_close(mapped(images()).pred_boxes, expected)


def test_an_image_with_fewer_tokens_than_queries():
    """All of its tokens propose a box; places that no pair of a query and a class is left for are empty."""
    model = random_model(num_queries=900, max_detections=200)
    pixel_values = images(height=32, width=32)
    output = model(pixel_values)
    tokens, pairs = 16 + 4 + 1 + 1, 22 * 7
    assert output.logits.shape == (2, tokens, 7) and output.scores.shape == output.labels.shape == (2, 200)
    assert (output.labels[:, :pairs] >= 0).all() and (output.labels[:, pairs:] == -1).all()
    assert not output.scores[:, pairs:].any() and not output.boxes[:, pairs:].any()
    fewer = random_model(num_queries=tokens, max_detections=pairs)
    fewer.load_state_dict(model.state_dict() | {"query_embed.weight": model.query_embed.weight[:tokens]})
    expected = fewer(pixel_values)
    assert torch.equal(output.boxes[:, :pairs], expected.boxes) and torch.equal(output.logits, expected.logits)


SHORT = {"backbone_config": tiny_backbone(depths=[1, 1, 1, 1]), "encoder_layers": 1, "decoder_layers": 2}


def test_compiles_into_one_graph():
    model = random_model(**SHORT)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()).pred_boxes, model(images()).pred_boxes)


def test_exports_with_dynamic_batch_and_size():
    model = random_model(**SHORT)
    batch = torch.export.Dim("batch", min=1, max=64)
    height, width = (32 * torch.export.Dim(name, min=3, max=64) for name in ("rows", "columns"))
    exported = torch.export.export(
        model,
        args=(),
        kwargs={"pixel_values": images(height=128, width=160), "pixel_mask": torch.ones(2, 128, 160)},
        dynamic_shapes={
            "pixel_values": {0: batch, 2: height, 3: width},
            "pixel_mask": {0: batch, 1: height, 2: width},
        },
    ).module()
    pixel_values, mask = images(batch_size=3, height=96, width=128), torch.ones(3, 96, 128)
    mask[0, 70:] = mask[1, :, 90:] = 0
    found, expected = exported(pixel_values=pixel_values, pixel_mask=mask), model(pixel_values, mask)
    torch.testing.assert_close(found.pred_boxes, expected.pred_boxes, rtol=1e-4, atol=1e-4)
