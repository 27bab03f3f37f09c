"""Mask R-CNN and Cascade Mask R-CNN: against the original's stored steps, and against plain loops."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForInstanceSegmentation, AutoModelForObjectDetection

from hf_models.configuration_backbone_rcnn import BackboneRCNNConfig
from hf_models.configuration_internimage import InternImageConfig
from hf_models.conversion.backbones.internimage import FAMILY
from hf_models.modeling_backbone_rcnn import grid_anchors, level_of

from ..harness.environment import Environment
from ..harness.plain_rcnn import PlainRCNN
from ..harness.rcnn_tester import BACKBONES, CASCADE, STAGES, padded_images, small_config, small_model

FIXTURES = Path(__file__).parents[1] / "fixtures" / "detection"
GOLDEN = load_file(FIXTURES / "det_mask_rcnn_t_like.safetensors")
BATCH = load_file(FIXTURES / "det_batch.safetensors")
ABOUT = json.loads((FIXTURES / "det_mask_rcnn_t_like.json").read_text())
IMAGES = (0, 1)
NAMES = {
    r"^neck\.lateral_convs\.(\d)\.conv": r"neck.lateral_convs.\1",
    r"^neck\.fpn_convs\.(\d)\.conv": r"neck.output_convs.\1",
    r"^rpn_head\.rpn_conv": "rpn.conv",
    r"^rpn_head\.rpn_cls": "rpn.objectness",
    r"^rpn_head\.rpn_reg": "rpn.deltas",
    r"^roi_head\.bbox_head\.shared_fcs": "box_heads.0.fcs",
    r"^roi_head\.bbox_head\.fc_cls": "box_heads.0.classifier",
    r"^roi_head\.bbox_head\.fc_reg": "box_heads.0.deltas",
    r"^roi_head\.mask_head\.convs\.(\d)\.conv": r"mask_heads.0.convs.\1",
    r"^roi_head\.mask_head\.upsample": "mask_heads.0.upsample",
    r"^roi_head\.mask_head\.conv_logits": "mask_heads.0.classifier",
}


def original_model():
    """The model of the golden, with its weights."""
    backbone = InternImageConfig(
        hidden_sizes=[16, 32, 64, 128],
        depths=[1, 2, 1, 1],
        groups=[1, 2, 4, 8],
        mlp_ratio=2.0,
        layer_scale_init_value=1.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = BackboneRCNNConfig(
        backbone_config=backbone,
        num_labels=5,
        fpn_channels=16,
        rpn_pre_nms=150,
        rpn_post_nms=60,
        roi_finest_scale=14,
        box_hidden_size=32,
        max_detections=12,
    )
    weights = {name.removeprefix("weights."): v for name, v in GOLDEN.items() if name.startswith("weights.")}
    inside = FAMILY.rename(name.removeprefix("backbone.") for name in weights if name.startswith("backbone."))
    state = {f"backbone.{new}": weights[f"backbone.{old}"] for old, new in inside.items()}
    for old, tensor in weights.items():
        for pattern, replacement in NAMES.items():
            if re.search(pattern, old):
                state[re.sub(pattern, replacement, old)] = tensor
    model = AutoModelForObjectDetection.from_config(config).eval()
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="module")
def original():
    return original_model()


@pytest.fixture(params=IMAGES)
def stored(request):
    """What the original computed for one image, step by step, with the size of the image in the padding."""
    prefix = f"{request.param}."
    steps = {name.removeprefix(prefix): tensor for name, tensor in GOLDEN.items() if name.startswith(prefix)}
    scale = torch.tensor(ABOUT["images"][request.param]["scale_factor"])
    return steps | {"size": size_of(request.param), "scale": scale}


def size_of(image):
    """Width and height without padding."""
    height, width, _ = ABOUT["images"][image]["img_shape"]
    return torch.tensor([width, height], dtype=torch.float32)


def masked(shape, *sizes):
    """The `pixel_mask` of images of these sizes (width, height) in a batch of a shape (height, width)."""
    pixel_mask = torch.zeros(len(sizes), *shape, dtype=torch.long)
    for mask, (width, height) in zip(pixel_mask, sizes, strict=True):
        mask[: int(height), : int(width)] = 1
    return pixel_mask


def levels(stored):
    return [stored[f"fpn{level}"] for level in range(5)]


def check(found, expected, tolerance=1e-5):
    """Equal within a part of the largest value."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * expected.abs().max().item())


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


class TestStoredSteps:
    """Each step of the original from its stored inputs."""

    def test_pyramid(self, original, stored):
        for found, expected in zip(
            original.neck([stored[f"feat{i}"] for i in range(1, 5)]), levels(stored), strict=True
        ):
            check(found, expected)

    def test_region_proposal_head(self, original, stored):
        objectness, deltas = original.rpn(levels(stored))
        for level in range(5):
            check(objectness[level], stored[f"rpn_cls{level}"])
            check(deltas[level], stored[f"rpn_reg{level}"])

    def test_candidates_and_proposals(self, original, stored):
        head = [[stored[f"rpn_{name}{level}"] for level in range(5)] for name in ("cls", "reg")]
        boxes, scores, of_level = original.candidates(*head, stored["size"][None])
        exists = (boxes[0, :, 2:] > boxes[0, :, :2]).all(dim=1)
        check(boxes[0, exists], stored["rpn_candidates"][:, :4])
        check(scores[0, exists], stored["rpn_candidates"][:, 4])
        assert torch.equal(of_level[exists], stored["rpn_candidate_levels"])
        (proposals,) = original.proposals(*head, stored["size"][None])
        check(proposals, stored["proposals"][:, :4])

    def test_box_head(self, original, stored):
        proposals = stored["proposals"][:, :4]
        assert torch.equal(level_of(proposals, 14, 4), stored["roi_levels0"])
        pooled = original.pool(levels(stored)[:4], proposals, 7)
        check(pooled[:16], stored["roi_feats0"])
        logits, deltas = original.box_heads[0](pooled)
        check(logits, stored["cls_score0"])
        check(deltas.flatten(1), stored["bbox_pred0"])

    def test_scores_and_boxes(self, original, stored):
        scores, boxes = original.classified(levels(stored)[:4], stored["proposals"][:, :4], stored["size"])
        region, label = (scores > 0.05).nonzero(as_tuple=True)
        assert torch.equal(label, stored["candidate_labels"])
        check(boxes[region, label] / stored["scale"], stored["candidates"][:, :4])
        check(scores[region, label], stored["candidates"][:, 4])

    def test_detections(self, original, stored):
        scores, labels, boxes, masks = original.detect(levels(stored)[:4], stored["proposals"][:, :4], stored["size"])
        assert torch.equal(labels, stored["det_labels"])
        check(scores, stored["det_bboxes"][:, 4])
        check(boxes * stored["size"].repeat(2) / stored["scale"], stored["det_bboxes"][:, :4])
        check(masks, stored["mask_logits0"].sigmoid())

    def test_masks(self, original, stored):
        regions = stored["mask_rois"][:, 1:]
        pooled = original.pool(levels(stored)[:4], regions, 14)
        check(pooled[:6], stored["mask_feats0"])
        logits = original.mask_heads[0](pooled)[torch.arange(12), stored["det_labels"]]
        check(logits, stored["mask_logits0"])
        check(original.masks(levels(stored)[:4], regions, stored["det_labels"]), logits.sigmoid())

    def test_from_pixels(self, original, stored):
        pixel_mask = masked(stored["pixel_values"].shape[2:], stored["size"])
        output = original(stored["pixel_values"], pixel_mask)
        assert torch.equal(output.labels[0], stored["det_labels"])
        torch.testing.assert_close(output.scores[0], stored["det_bboxes"][:, 4], rtol=0, atol=1e-4)
        boxes = output.boxes[0] * stored["size"].repeat(2) / stored["scale"]
        torch.testing.assert_close(boxes, stored["det_bboxes"][:, :4], rtol=0, atol=0.01)
        torch.testing.assert_close(output.masks[0], stored["mask_logits0"].sigmoid(), rtol=0, atol=1e-3)

    def test_levels_and_anchors(self):
        operators = load_file(FIXTURES / "det_ops.safetensors")
        assert torch.equal(level_of(operators["roi_levels.rois"][:, 1:], 56, 4), operators["roi_levels.output"])
        for level, size in enumerate([(5, 7), (3, 4), (2, 2), (1, 1), (1, 1)]):
            expected = operators[f"anchors.level{level}"]
            torch.testing.assert_close(grid_anchors(*size, 4 * 2**level, 8), expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("image", IMAGES)
    def test_batch(self, original, image):
        """Two images as one batch, with more padding than alone."""
        pixel_values = BATCH["det_mask_rcnn_t_like.pixel_values"]
        batch = original(pixel_values, masked(pixel_values.shape[2:], *map(size_of, IMAGES)))
        expected = {name: BATCH[f"det_mask_rcnn_t_like.{image}.{name}"] for name in ("det_bboxes", "det_labels")}
        scale = torch.tensor(ABOUT["images"][image]["scale_factor"])
        assert torch.equal(batch.labels[image], expected["det_labels"])
        torch.testing.assert_close(batch.scores[image], expected["det_bboxes"][:, 4], rtol=0, atol=1e-4)
        boxes = batch.boxes[image] * size_of(image).repeat(2) / scale
        torch.testing.assert_close(boxes, expected["det_bboxes"][:, :4], rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("backbone", "kwargs"),
    [
        ("flash_internimage", CASCADE | {"fpn_norm": "layer"}),
        ("replknet", CASCADE),
        ("convnext", CASCADE | {"with_masks": False}),
        ("smt", {"fpn_norm": "layer"}),
        ("internimage", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "cascade" if "box_stds" in value else "single",
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_is_a_plain_loop(backbone, kwargs, seed):
    model, size = small_model(backbone, seed, **kwargs), (89, 61)
    inputs = padded_images(size, seed=seed)
    feature_maps = model.backbone(inputs["pixel_values"]).feature_maps
    scores, labels, boxes, masks = PlainRCNN(model).detections(feature_maps, size)
    output, found = model(**inputs), len(scores)
    assert found > 2 and output.labels[0].tolist() == labels + [-1] * (10 - found)
    torch.testing.assert_close(output.scores[0, :found], torch.tensor(scores), rtol=0, atol=1e-4)
    pixels = output.boxes[0, :found] * torch.tensor(size).repeat(2)
    torch.testing.assert_close(pixels, torch.tensor(boxes), rtol=0, atol=1e-2)
    if model.config.with_masks:
        torch.testing.assert_close(output.masks[0, :found].double(), torch.stack(masks), rtol=0, atol=1e-3)
    else:
        assert output.masks is None


# --- batches, and images in which nothing is found


def test_an_image_does_not_see_its_company():
    """Of images of one padded size: the same as alone, whatever the other's size is."""
    model, sizes = small_model(**CASCADE), [(128, 64), (70, 50), (100, 64)]
    inputs = padded_images(*sizes)
    together = model(**inputs)
    for i in range(len(sizes)):
        alone = model(**{name: tensor[i : i + 1] for name, tensor in inputs.items()})
        for name in ("scores", "labels", "boxes", "masks"):
            torch.testing.assert_close(together[name][i], alone[name][0], rtol=0, atol=1e-4)


def test_detections_come_as_promised():
    model, sizes = small_model(), [(128, 64), (70, 50)]
    output = model(**padded_images(*sizes), output_hidden_states=True)
    shapes = {name: tuple(output[name].shape) for name in ("scores", "labels", "boxes", "masks")}
    assert shapes == {"scores": (2, 10), "labels": (2, 10), "boxes": (2, 10, 4), "masks": (2, 10, 28, 28)}
    assert output.loss is None and len(output.hidden_states) == 5
    assert (output.scores.diff(dim=1) <= 0).all()
    assert (output.boxes >= 0).all() and (output.boxes <= 1).all()
    assert (output.masks >= 0).all() and (output.masks <= 1).all()
    torch.testing.assert_close(model(**padded_images(*sizes), return_dict=False)[0], output.scores)


def test_without_a_mask_all_pixels_are_image():
    model, inputs = small_model(), padded_images((128, 64))
    torch.testing.assert_close(model(**inputs).boxes, model(inputs["pixel_values"]).boxes)


def test_nothing_is_found_in_one_image_of_two():
    """Neither proposals, where there are no pixels, nor, with a high threshold, detections."""
    for kwargs in ({}, CASCADE, {"with_masks": False}):
        model = small_model(**kwargs)
        inputs = padded_images((128, 64), (128, 64))
        inputs["pixel_mask"][1] = 0
        output = model(**inputs)
        assert (output.labels[0] >= 0).any() and (output.labels[1] == -1).all()
        for name in ("scores", "boxes", *(["masks"] if model.config.with_masks else [])):
            assert not output[name][1].any()
        model.config.score_threshold = 1.0
        assert (model(**inputs).labels == -1).all()


def test_a_broken_model_does_not_fail():
    """Numbers that are none reach no index and no size."""
    model = small_model(**CASCADE)
    for broken in (model.box_heads[1].deltas, model.box_heads[0].classifier, model.rpn.deltas, model.rpn.objectness):
        broken.bias.fill_(torch.nan)
        output = model(**padded_images((128, 64)))
    assert (output.labels == -1).all()


def test_what_the_model_does_not_take_is_refused():
    model, inputs = small_model(), padded_images((64, 64))
    with pytest.raises(ValueError, match=r"pixel_mask: expected \(1, 64, 64\), got \(1, 64, 32\)"):
        model(inputs["pixel_values"], inputs["pixel_mask"][:, :, :32])


# --- as a model of transformers


def test_auto_classes_know_it(tmp_path):
    model, inputs = small_model(**CASCADE), padded_images((64, 64))
    model.save_pretrained(tmp_path)
    expected = model(**inputs)
    for auto in (AutoModelForObjectDetection, AutoModelForInstanceSegmentation):
        loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is type(model) and not any(info.values())
        torch.testing.assert_close(loaded.eval()(**inputs).boxes, expected.boxes, rtol=0, atol=0)


def test_config_survives_json(tmp_path):
    config = small_config("replknet", **CASCADE, fpn_norm="layer")
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert json.loads(loaded.to_json_string()) == json.loads(config.to_json_string())
    assert loaded.level_strides == [4, 8, 16, 32, 64]


def test_impossible_configurations_are_refused():
    for change, message in (
        ({"max_detections": 0}, "max_detections must be positive, got 0"),
        ({"fpn_norm": "batch"}, "fpn_norm must be \"layer\" or None, got 'batch'"),
        ({"box_stds": []}, r"box_stds must have four numbers for each stage, got \[\]"),
        ({"box_stds": [[0.1, 0.2]]}, r"box_stds must have four numbers for each stage, got \[\[0.1, 0.2\]\]"),
        ({"box_loss": "iou"}, 'box_loss must be "l1" or "giou", got \'iou\''),
        ({"box_ious": [0.5, 0.6]}, r"box_ious must have a number for each of 1 stages, got \[0.5, 0.6\]"),
        ({"box_samples": 0}, "box_samples must be positive, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            small_config(**change)


def test_models_are_trained_as_the_published_ones():
    one, three = small_config(), small_config(**CASCADE)
    assert (one.box_ious, one.stage_weights, one.box_loss, one.box_loss_weight) == ([0.5], [1.0], "l1", 1.0)
    assert (one.rpn_train_post_nms, one.rpn_loss_beta) == (1000, 0.0)
    assert one.box_best_matches and not one.rpn_inside_anchors
    assert (three.box_ious, three.stage_weights) == ([0.5, 0.6, 0.7], [1.0, 0.5, 0.25])
    assert (three.box_loss, three.box_loss_weight, three.rpn_train_post_nms) == ("giou", 10.0, 2000)
    assert three.rpn_inside_anchors and not three.box_best_matches and three.rpn_loss_beta == 1 / 9


def test_strides_are_those_of_the_backbone():
    """Of fewer stages too, and of backbones of transformers."""
    for backbone in ("internimage", "convnext"):
        config = small_config(backbone)
        config.backbone_config.out_features = STAGES[1:3]
        assert config.level_strides == [8, 16, 32]
        model = AutoModelForObjectDetection.from_config(config).eval()
        levels = model.neck(model.backbone(torch.zeros(1, 3, 64, 64)).feature_maps)
        assert [64 // level.shape[2] for level in levels] == config.level_strides


def test_other_classes_on_the_same_weights(tmp_path):
    small_model(**CASCADE).save_pretrained(tmp_path)
    model, info = AutoModelForObjectDetection.from_pretrained(
        tmp_path, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
    )
    changed = {f"{part}.{leaf}" for part in ("classifier", "deltas") for leaf in ("weight", "bias")}
    expected = {f"box_heads.{stage}.{name}" for stage in range(3) for name in changed}
    expected |= {f"mask_heads.{stage}.classifier.{leaf}" for stage in range(3) for leaf in ("weight", "bias")}
    assert {name for name, *_ in info["mismatched_keys"]} == expected and not info["missing_keys"]
    state = model.state_dict()
    assert state["box_heads.0.deltas.weight"].shape[0] == 28 and not state["box_heads.0.deltas.bias"].any()
    assert 0 < state["box_heads.0.deltas.weight"].std() < 0.002 < state["mask_heads.0.classifier.weight"].std() < 0.02
    assert model.eval()(**padded_images((64, 64))).scores.isfinite().all()


@pytest.mark.parametrize("meta", [False, True])
def test_every_layer_is_initialised(tmp_path, meta):
    """Also where a checkpoint lacks all that is not the backbone's."""
    if meta:
        model = small_model(**CASCADE, fpn_norm="layer")
        state = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("backbone.")}
        model.save_pretrained(tmp_path, state_dict=state)
        model = AutoModelForObjectDetection.from_pretrained(tmp_path)
    else:
        torch.manual_seed(0)
        model = AutoModelForObjectDetection.from_config(small_config(**CASCADE, fpn_norm="layer"))
    for name, tensor in model.state_dict().items():
        if name.startswith("backbone."):
            continue
        elif name.endswith(("bias", "running_mean", "num_batches_tracked")):
            assert not tensor.any(), name
        elif "norms" in name:
            assert (tensor == 1).all(), name
        else:
            expected = (6 / sum(torch.nn.init._calculate_fan_in_and_fan_out(tensor)) / 3) ** 0.5  # Xavier
            if name.endswith(("objectness.weight", "classifier.weight")) or name == "rpn.deltas.weight":
                expected = 0.01
            elif name.endswith("deltas.weight"):
                expected = 0.001
            assert 0.5 < tensor.std() / expected < 2, name


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(backbone, dtype, tmp_path):
    """What is chosen from, and how, is in float32."""
    small_model(backbone, **CASCADE).save_pretrained(tmp_path)
    model = AutoModelForObjectDetection.from_pretrained(tmp_path, dtype=dtype).eval()
    inputs, size = padded_images((96, 64)), torch.tensor([[96.0, 64.0]])
    levels = model.neck(model.backbone(inputs["pixel_values"].to(dtype)).feature_maps)
    predicted = model.rpn(levels)
    assert {tensor.dtype for tensors in (levels, *predicted) for tensor in tensors} == {dtype}
    in_single = [[tensor.float() for tensor in tensors] for tensors in predicted]
    assert torch.equal(model.proposals(*predicted, size)[0], model.proposals(*in_single, size)[0])
    output = model(**inputs)
    assert (output.labels >= 0).any()
    for name in ("scores", "boxes", "masks"):
        assert output[name].dtype == torch.float32 and output[name].isfinite().all()


def test_autocast():
    model, inputs = small_model("flash_internimage", **CASCADE), padded_images((96, 64))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**inputs)
    assert output.labels[0, 0] == model(**inputs).labels[0, 0]
    assert {output[name].dtype for name in ("scores", "boxes", "masks")} == {torch.float32}


def test_meta_device_and_device_map(tmp_path):
    model, inputs = small_model(**CASCADE), padded_images((64, 64))
    model.save_pretrained(tmp_path)
    with torch.device("meta"):
        empty = AutoModelForObjectDetection.from_config(small_config(**CASCADE))
    assert all(parameter.is_meta for parameter in empty.parameters())
    expected = model(**inputs)
    for device_map in ("cpu", "auto", {"": "disk"}):
        mapped = AutoModelForObjectDetection.from_pretrained(
            tmp_path, device_map=device_map, offload_folder=tmp_path / "offload"
        )
        torch.testing.assert_close(mapped.eval()(**inputs).boxes, expected.boxes)


def test_the_dense_part_compiles_into_whole_graphs():
    """The rest depends on what is found. Backbones have tests of their own."""
    model, inputs = small_model(box_convs=2, fpn_norm="layer"), padded_images((96, 64))
    expected = model(**inputs)
    for module in (model.neck, model.rpn, *model.box_heads, *model.mask_heads):
        module.compile(fullgraph=True, backend="aot_eager", dynamic=True)
    found = model(**inputs)
    for name in ("scores", "boxes", "masks"):
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-4)


def test_the_dense_part_exports():
    model = small_model(fpn_norm="layer")
    feature_maps = model.backbone(padded_images((96, 64))["pixel_values"]).feature_maps
    levels = model.neck(feature_maps)
    for module, inputs in ((model.neck, (feature_maps,)), (model.rpn, (levels,))):
        exported = torch.export.export(module, inputs).module()
        torch.testing.assert_close(exported(*inputs), module(*inputs))


def test_gradients_reach_the_pixels():
    """For pictures of what a detection depends on."""
    model, inputs = small_model(), padded_images((96, 64))
    inputs["pixel_values"].requires_grad_()
    with torch.enable_grad():
        output = model(**inputs)
        (output.scores[0, 0] + output.boxes[0].sum() + output.masks[0].sum()).backward()
    assert inputs["pixel_values"].grad.any() and inputs["pixel_values"].grad.isfinite().all()


CLIENT = """
import sys

sys.modules["hf_models"] = None  # as where it is not installed
import torch
import transformers

inputs = torch.load("inputs.pt")
for auto in ("AutoModelForObjectDetection", "AutoModelForInstanceSegmentation"):
    for folder in ("saved", "again"):
        model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True).eval()
        assert type(model).__module__.startswith("transformers_modules."), type(model)
        with torch.inference_mode():
            torch.save(dict(model(**inputs)), f"{auto}-{folder}.pt")
        model.save_pretrained("again")
"""


def test_loads_without_the_package(tmp_path):
    """And what was loaded so is saved with its code again."""
    model, inputs = small_model("flash_internimage", **CASCADE), padded_images((96, 64))
    model.save_pretrained(tmp_path / "saved")
    torch.save(inputs, tmp_path / "inputs.pt")
    (tmp_path / "client.py").write_text(CLIENT)
    done = Environment(tmp_path, package=False).run("client.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    files = {path.name for path in (tmp_path / "again").glob("*.py")}
    assert files == {path.name for path in (tmp_path / "saved").glob("*.py")}
    assert {"modeling_backbone_rcnn.py", "roi_align.py", "nms.py", "boxes.py", "detector_output.py"} <= files
    for path in tmp_path.glob("Auto*.pt"):
        for name, tensor in torch.load(path).items():
            torch.testing.assert_close(tensor, model(**inputs)[name], rtol=0, atol=1e-4)
