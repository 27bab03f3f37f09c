"""Test-time processing as the originals do it, the overlay, the pipeline, and the two heads of this package."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    DetrConfig,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    pipeline,
)
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.utils import ModelOutput
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.configuration_smt import SMTConfig
from hf_models.conversion import convert
from hf_models.errors import InputError
from hf_models.modeling_smt import SMTForImageClassification
from hf_models.resizing import resize_8_bit
from hf_models.segmentation import load_segmenter, overlay, semantic_labels, semantic_scores, strips
from hf_models.segmentation.overlay import segment_image
from hf_models.segmentation.predict import class_scores, windows
from hf_models.segmentation.preparation import prepare_image
from hf_models.zoo.segmentation_recipe import SegmentationRecipe

from ..harness.evaluation_tester import make_model
from ..harness.peak_memory import peak_memory
from ..harness.segmentation_tester import CLASSES, FIXTURES, checkpoint, write_checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "smt_upernet.py"
KINDS = [("internimage", "upernet"), ("internimage", "segformer_head"), ("internimage_h", "mask2former")]
SMALL = SegmentationRecipe(short_edge=48, long_edge=192)
SLIDING = SegmentationRecipe(short_edge=48, long_edge=192, crop_size=(32, 40), stride=(20, 24))


def photo(width: int = 75, height: int = 50) -> Image.Image:
    smooth = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module", params=KINDS, ids=[head for _, head in KINDS])
def folder(request, tmp_path_factory) -> Path:
    """A small converted checkpoint of each kind."""
    path = tmp_path_factory.mktemp(request.param[1])
    state, config = checkpoint(*request.param)
    source, original = write_checkpoint(path, state, config)
    convert(source, path / "out", original_config=original, progress=False)
    return path / "out"


# --- preparing images


def test_resize_equals_opencv():
    """50 random pairs of sizes, resized twice by OpenCV."""
    cases = load_file(FIXTURES / "opencv_resize.safetensors")
    for i in range(50):
        image, expected = (cases[f"{i}.{name}"].permute(2, 0, 1) for name in ("image", "resized"))
        resized = resize_8_bit(image, *cases[f"{i}.size"].tolist())
        assert torch.equal(resize_8_bit(resized, *expected.shape[1:]), expected)


@pytest.mark.parametrize(
    ("recipe", "size", "scale", "expected"),
    [
        (SegmentationRecipe(), (683, 512), 1.0, (512, 704)),  # already 512: only to the next multiple of 32
        (SegmentationRecipe(), (640, 480), 1.0, (512, 704)),  # 682.67 is rounded to 683
        (SegmentationRecipe(), (480, 640), 1.0, (704, 512)),
        (SegmentationRecipe(), (5000, 500), 1.0, (224, 2048)),  # the long side decides
        (SegmentationRecipe(size_divisor=None), (640, 480), 1.0, (512, 683)),
        (SegmentationRecipe(short_edge=1025, long_edge=2049, size_divisor=None), (2048, 1024), 1.0, (1025, 2049)),
        (SegmentationRecipe(size_divisor=None), (640, 480), 0.75, (384, 512)),
        (SegmentationRecipe(short_edge=1025, long_edge=4100, size_divisor=None), (100, 100), 0.5, (512, 512)),
    ],
)
def test_sizes(recipe, size, scale, expected):
    pixels = torch.zeros(3, size[1], size[0], dtype=torch.uint8)
    assert prepare_image(pixels, recipe, scale).shape == (1, 3, *expected)


def test_normalisation():
    pixels = torch.tensor([[[0]], [[128]], [[255]]], dtype=torch.uint8).expand(3, 64, 64)
    recipe = SegmentationRecipe(short_edge=64, mean=(123.675 / 255, 0.5, 0.5), std=(58.395 / 255, 0.5, 0.25))
    values = prepare_image(pixels, recipe)[0, :, 0, 0]
    torch.testing.assert_close(values, torch.tensor([-123.675 / 58.395, 256 / 255 - 1, 2.0]))


# --- scores


class Local(nn.Module):
    """Scores that depend on the pixels and on where they lie in the window, as a real network's do."""

    device, dtype = torch.device("cpu"), torch.float32

    def forward(self, pixel_values):
        height, width = pixel_values.shape[2:]
        ramp = torch.linspace(0, 1, height)[:, None] * torch.linspace(0, 1, width) ** 2
        logits = torch.cat((pixel_values, pixel_values.mean(1, keepdim=True) * 3 + ramp), dim=1)
        return SemanticSegmenterOutput(logits=logits)


def naive_logits(model, pixel_values, recipe):
    """mmseg's slide_inference: loops over a grid, with every window counted."""
    if recipe.crop_size is None:
        return model(pixel_values).logits
    (crop_height, crop_width), (step_y, step_x) = recipe.crop_size, recipe.stride
    height, width = pixel_values.shape[2:]
    total, count = torch.zeros(1, 4, height, width), torch.zeros(1, 1, height, width)
    for row in range(max(height - crop_height + step_y - 1, 0) // step_y + 1):
        for column in range(max(width - crop_width + step_x - 1, 0) // step_x + 1):
            bottom, right = min(row * step_y + crop_height, height), min(column * step_x + crop_width, width)
            top, left = max(bottom - crop_height, 0), max(right - crop_width, 0)
            total[:, :, top:bottom, left:right] += model(pixel_values[:, :, top:bottom, left:right]).logits
            count[:, :, top:bottom, left:right] += 1
    return total / count


@pytest.mark.parametrize("recipe", [SMALL, SLIDING], ids=["whole", "sliding"])
@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((0.5, 1.0, 1.75), False), ((0.75, 1.25), True)])
def test_scores_equal_a_naive_loop(recipe, scales, flip):
    image, model = photo(), Local()
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    views = []
    for scale in scales:
        prepared = prepare_image(pixels, recipe, scale)
        for mirrored in (False, True) if flip else (False,):
            logits = naive_logits(
                model, prepared[..., range(prepared.shape[3] - 1, -1, -1)] if mirrored else prepared, recipe
            )
            logits = F.interpolate(logits, size=(50, 75), mode="bilinear", align_corners=False).softmax(1)
            views.append(logits[..., range(74, -1, -1)] if mirrored else logits)
    expected = torch.cat(views).mean(0)
    scores = semantic_scores(model, image, recipe, scales=scales, flip=flip)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(scores.sum(0), torch.ones(50, 75))


class Coarse(Local):
    """Scores at a quarter of the resolution, rounded so that many classes tie, of as many classes as wanted."""

    def __init__(self, num_labels: int = 4):
        super().__init__()
        self.num_labels = num_labels

    def forward(self, pixel_values):
        logits = F.avg_pool2d(super().forward(pixel_values).logits, 4).round()
        return SemanticSegmenterOutput(logits=logits.repeat(1, -(-self.num_labels // 4), 1, 1)[:, : self.num_labels])


@pytest.mark.parametrize("strip", [1, 4 * 75 * 7, 1 << 22], ids=["rows", "seven rows", "the image"])
@pytest.mark.parametrize(
    "recipe", [SMALL, SLIDING, replace(SMALL, align_corners=True)], ids=["whole", "sliding", "aligned"]
)
@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((0.5, 1.0, 1.75), True)])
@pytest.mark.parametrize("size", [(75, 50), (150, 130)], ids=["small", "large"])
def test_labels_are_the_best_scores(strip, recipe, scales, flip, size, monkeypatch):
    """To the last bit, ties included, whether the views or all scores are kept."""
    monkeypatch.setattr(strips, "STRIP", strip)
    for model in (Coarse(), Local()):
        scores = semantic_scores(model, photo(*size), recipe, scales=scales, flip=flip)
        labels = semantic_labels(model, photo(*size), recipe, scales=scales, flip=flip)
        assert labels.dtype == torch.uint8 and torch.equal(labels.long(), scores.argmax(0))
    ties = (scores == scores.amax(0)).sum(0) > 1
    assert isinstance(model, Local) or ties.any()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("old", "new"), [((24, 32), (50, 75)), ((90, 120), (50, 75)), ((1, 1), (3, 5)), ((7, 9), (1, 1))]
)
def test_strips_are_rows_of_interpolate(align_corners, old, new):
    scores = torch.randn(1, 3, *old, generator=torch.Generator().manual_seed(0))
    middle = (old[0] * 2, old[1] * 3)
    expected = F.interpolate(scores, size=middle, mode="bilinear", align_corners=not align_corners)
    expected = F.interpolate(expected, size=new, mode="bilinear", align_corners=align_corners).softmax(1)[0]
    view = strips.View(scores, middle, not align_corners)
    for step in (1, 4, new[0]):
        found = [
            view.probabilities(slice(top, min(top + step, new[0])), new, align_corners)
            for top in range(0, new[0], step)
        ]
        torch.testing.assert_close(torch.cat(found, dim=1), expected, rtol=0, atol=1e-6)


def test_labels_of_many_classes_take_two_bytes():
    labels = semantic_labels(Coarse(300), photo(), SMALL)
    assert labels.dtype == torch.int16 and labels.shape == (50, 75)


def test_labels_of_nan_are_refused():
    class Broken(Local):
        name_or_path = "acme/broken"

        def forward(self, pixel_values):
            return SemanticSegmenterOutput(logits=super().forward(pixel_values).logits.log())

    with pytest.raises(InputError, match=r"acme/broken: returns NaN or infinity in float32\. Use another dtype, or"):
        semantic_labels(Broken(), photo(), SMALL)


def test_scores_before_the_models_own_resize_are_its_logits(folder):
    """UperNet and SegFormer's head resize to their input: `class_scores` does it after them, in less memory."""
    model, _ = load_segmenter(folder)
    pixel_values = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        outputs = model(pixel_values=pixel_values)
        if "logits" in outputs:
            torch.testing.assert_close(class_scores(model, pixel_values), outputs.logits)


def test_windows_cover_everything_and_stay_inside():
    for size, crop, stride in ((100, 64, 32), (64, 64, 32), (50, 64, 32), (65, 64, 64), (769, 640, 426)):
        covered = torch.zeros(size)
        for window in windows(size, crop, stride):
            assert window.start >= 0 and window.stop <= size and window.stop - window.start == min(crop, size)
            covered[window] += 1
        assert covered.min() >= 1


def test_aligned_corners_reach_the_last_resize():
    recipe = SegmentationRecipe(short_edge=24, long_edge=96, size_divisor=None, align_corners=True)
    prepared = prepare_image(torch.from_numpy(np.array(photo())).permute(2, 0, 1), recipe)
    expected = F.interpolate(Local()(prepared).logits, size=(50, 75), mode="bilinear", align_corners=True)
    torch.testing.assert_close(semantic_scores(Local(), photo(), recipe), expected.softmax(1)[0])


def test_scores_of_mask2former_are_the_originals():
    """Masks become probabilities at their own resolution, the last class is "no object"."""
    torch.manual_seed(0)
    classes, masks = torch.randn(1, 6, 4), torch.randn(1, 6, 8, 12)

    class Outputs(dict):
        __getattr__ = dict.__getitem__

    class Queries(Local):
        def forward(self, pixel_values):
            return Outputs(class_queries_logits=classes, masks_queries_logits=masks)

    expected = torch.zeros(3, 8, 12)
    for query in range(6):
        for label in range(3):
            expected[label] += classes[0, query].softmax(0)[label] * masks[0, query].sigmoid()
    expected = F.interpolate(expected[None], size=(32, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(class_scores(Queries(), torch.zeros(1, 3, 32, 48)), expected)


def stock_segformer() -> SegformerForSemanticSegmentation:
    return SegformerForSemanticSegmentation(
        SegformerConfig(hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=8, num_labels=CLASSES)
    )


def stock_maskformer() -> MaskFormerForInstanceSegmentation:
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    backbone = SMTConfig(hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 2, 1], out_indices=[1, 2, 3, 4])
    config = MaskFormerConfig(
        fpn_feature_size=32,
        mask_feature_size=16,
        backbone_config=backbone,
        decoder_config=DetrConfig(d_model=16, decoder_ffn_dim=16, num_queries=6, **heads),
        num_labels=CLASSES,
    )
    return MaskFormerForInstanceSegmentation(config)


@pytest.mark.parametrize("build", [stock_segformer, stock_maskformer])
def test_models_of_transformers(build, tmp_path):
    """Their logits or masks have a lower resolution than the pixels, also in windows."""
    torch.manual_seed(0)
    stock = build()
    stock.save_pretrained(tmp_path)
    model, recipe = load_segmenter(tmp_path)
    assert type(model) is type(stock) and recipe == SegmentationRecipe()
    for recipe in (SMALL, SLIDING):
        scores = semantic_scores(model, photo(), recipe)
        assert scores.shape == (CLASSES, 50, 75)
        torch.testing.assert_close(scores.sum(0), torch.ones(50, 75))


def test_outputs_that_score_no_pixels():
    class Detector(Local):
        name_or_path = "acme/detector"

        def forward(self, pixel_values):
            return ModelOutput(logits=torch.zeros(1, 100, 92), pred_boxes=torch.zeros(1, 100, 4))

    with pytest.raises(InputError, match=r"acme/detector: gives no scores of pixels, but logits \(1, 100, 92\), pred"):
        class_scores(Detector(), torch.zeros(1, 3, 32, 48))


# --- models


def test_load_and_segment(folder):
    model, recipe = load_segmenter(folder)
    assert recipe == SegmentationRecipe() and not model.training
    assert semantic_scores(model, photo(), SMALL).shape == (model.config.num_labels, 50, 75)


def test_pipeline(folder):
    image = photo()
    segments = pipeline("image-segmentation", model=str(folder))(image, subtask="semantic")
    masks = torch.stack([torch.from_numpy(np.array(segment["mask"])) for segment in segments])
    assert masks.shape[1:] == (50, 75) and (masks.bool().sum(0) == 1).all(), "each pixel has one class"
    assert all(segment["label"].startswith("LABEL_") for segment in segments)


def test_bfloat16(folder):
    model, _ = load_segmenter(folder, dtype=torch.bfloat16)
    if model.config.model_type == "mask2former":
        pytest.skip("PyTorch's grid_sample on CPUs, which transformers' Mask2Former uses, is wrong in bfloat16")
    assert semantic_scores(model, photo(), SMALL).isfinite().all()


def test_what_cannot_be_loaded(tmp_path):
    with pytest.raises(InputError, match="nothing: cannot be loaded as a segmentation model"):
        load_segmenter(tmp_path / "nothing")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "smt"}))
    with pytest.raises(InputError, match="is for image-classification, not for image-segmentation"):
        load_segmenter(tmp_path)


def naive_segformer_head(state: dict, features: list[torch.Tensor]) -> torch.Tensor:
    """mmseg's SegformerHead by its own names, with BatchNorm written out."""

    def conv_norm_relu(name, x):
        x = F.conv2d(x, state[f"{name}.conv.weight"])
        mean, var, weight, bias = (
            state[f"{name}.bn.{leaf}"].view(1, -1, 1, 1) for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    size = features[0].shape[2:]
    maps = [
        F.interpolate(conv_norm_relu(f"decode_head.convs.{i}", x), size=size, mode="bilinear", align_corners=False)
        for i, x in enumerate(features)
    ]
    fused = conv_norm_relu("decode_head.fusion_conv", torch.cat(maps, dim=1))
    return F.conv2d(fused, state["decode_head.conv_seg.weight"], state["decode_head.conv_seg.bias"])


def naive_aligned_upernet(state: dict, features: list[torch.Tensor]) -> torch.Tensor:
    """mmseg's UPerHead with align_corners=True by its own names."""

    def block(name, x, padding=0):
        x = F.conv2d(x, state[f"decode_head.{name}.conv.weight"], padding=padding)
        leaves = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"decode_head.{name}.bn.{leaf}"] for leaf in leaves)).relu()

    def resize(x, like):
        return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)

    last = features[-1]
    pooled = [
        resize(block(f"psp_modules.{i}.1", F.adaptive_avg_pool2d(last, scale)), last) for i, scale in enumerate((1, 3))
    ]
    laterals = [block(f"lateral_convs.{i}", x) for i, x in enumerate(features[:-1])]
    laterals.append(block("bottleneck", torch.cat([last, *pooled], dim=1), padding=1))
    for i in (3, 2, 1):
        laterals[i - 1] = laterals[i - 1] + resize(laterals[i], laterals[i - 1])
    outputs = [block(f"fpn_convs.{i}", x, padding=1) for i, x in enumerate(laterals[:-1])] + [laterals[-1]]
    fused = block("fpn_bottleneck", torch.cat([resize(x, outputs[0]) for x in outputs], dim=1), padding=1)
    return F.conv2d(fused, state["decode_head.conv_seg.weight"], state["decode_head.conv_seg.bias"])


@pytest.mark.parametrize(
    ("family", "head", "kwargs", "naive"),
    [
        ("internimage", "segformer_head", {}, naive_segformer_head),
        ("replknet", "upernet", {"align_corners": True, "feature_norms": True}, naive_aligned_upernet),
    ],
)
def test_our_heads_compute_what_mmsegs_do(family, head, kwargs, naive, tmp_path):
    state, config = checkpoint(family, head, **kwargs)
    source, original = write_checkpoint(tmp_path, state, config)
    convert(source, tmp_path / "out", original_config=original, progress=False)
    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    torch.manual_seed(0)
    pixel_values = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        logits = naive(state, model.backbone(pixel_values).feature_maps)
        aligned = kwargs.get("align_corners", False)
        expected = F.interpolate(logits, size=(65, 97), mode="bilinear", align_corners=aligned)
        torch.testing.assert_close(model(pixel_values).logits, expected, rtol=1e-4, atol=1e-4)


def test_feature_norms_of_replknet(tmp_path):
    """RepLKNet-XL passes each feature map, but not what the next stage gets, through a BatchNorm."""
    state, config = checkpoint("replknet", "upernet", feature_norms=True)
    source, original = write_checkpoint(tmp_path, state, config)
    convert(source, tmp_path / "out", original_config=original, progress=False)
    backbone = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "out").eval().backbone
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        outputs = backbone(pixel_values, output_hidden_states=True)
        for i, (feature_map, hidden) in enumerate(zip(outputs.feature_maps, outputs.hidden_states[1:], strict=True)):
            leaves = ("running_mean", "running_var", "weight", "bias")
            expected = F.batch_norm(hidden, *(state[f"backbone.stages.{i}.norm.{leaf}"] for leaf in leaves))
            torch.testing.assert_close(feature_map, expected)


@pytest.mark.parametrize("model_type", ["segformer_head", "aligned_upernet"])
def test_our_heads_train_and_save(model_type, tmp_path):
    backbone = SMTConfig(hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 2, 1], out_indices=[1, 2, 3, 4])
    config = AutoConfig.for_model(model_type, backbone_config=backbone, hidden_size=16, num_labels=CLASSES)
    torch.manual_seed(0)
    model = AutoModelForSemanticSegmentation.from_config(config).train()
    pixel_values, labels = torch.randn(2, 3, 64, 64), torch.randint(0, CLASSES, (2, 64, 64))
    labels[0, :8] = 255
    loss = model(pixel_values=pixel_values, labels=labels).loss
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None for p in model.decode_head.parameters())
    assert model(pixel_values, return_dict=False)[0].shape == (2, CLASSES, 64, 64)
    model.save_pretrained(tmp_path)
    again, info = AutoModelForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and type(again) is type(model)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(pixel_values).logits, model.eval()(pixel_values).logits)


def test_the_example_of_smt_under_upernet(tmp_path):
    """The authors' setting for SMT-S by the published classifier; a small one takes a training step."""
    spec = importlib.util.spec_from_file_location("smt_upernet", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    from hf_models.zoo import find_checkpoint

    with torch.device("meta"):
        model = UperNetForSemanticSegmentation(example.upernet_config(find_checkpoint("smt_small").config()))
    assert sum(p.numel() for p in model.parameters()) == 52_345_580  # as in the authors' own code

    torch.manual_seed(0)
    small = SMTConfig(hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 2, 1], num_labels=3, drop_path_rate=0.0)
    classifier = SMTForImageClassification(small)
    classifier.save_pretrained(tmp_path)
    model = example.build(tmp_path, num_labels=CLASSES).train()
    assert torch.equal(model.backbone.embeddings.conv1.weight, classifier.smt.embeddings.conv1.weight)
    pixel_values, labels = torch.randn(2, 3, 64, 64), torch.randint(0, CLASSES, (2, 64, 64))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(2):
        loss = model(pixel_values=pixel_values, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    model.save_pretrained(tmp_path / "segmenter")
    assert isinstance(UperNetConfig.from_pretrained(tmp_path / "segmenter").backbone_config, SMTConfig)


# --- the overlay


@pytest.fixture
def picture(tmp_path) -> Path:
    photo().save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_segment_command(folder, picture, tmp_path):
    out = tmp_path / "overlay.png"
    arguments = ["segment", str(picture), "--model", str(folder), "--out", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    classes = json.loads(result.stdout)
    assert sum(entry["share"] for entry in classes) == pytest.approx(1)
    assert [entry["share"] for entry in classes] == sorted((entry["share"] for entry in classes), reverse=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["overlay.png", "photo.png"]
    overlay = Image.open(out)
    assert overlay.width > 75 and overlay.height >= 50, "a legend stands beside the image"

    lines = CliRunner().invoke(app, arguments).stdout.splitlines()
    named = [entry["label"] for entry in classes if entry["share"] >= 0.001]
    assert [line.split(maxsplit=1)[1].removeprefix("% ") for line in lines[: len(named)]] == named
    assert lines[len(named) :] == (
        [] if len(named) == len(classes) else [f"and {len(classes) - len(named)} others below 0.1%"]
    )


def test_classes_of_few_pixels_are_counted(picture, tmp_path, monkeypatch):
    """Two of 50 x 75 pixels are less than 0.1 %."""
    labels = torch.zeros(50, 75, dtype=torch.uint8)
    labels[0, :2] = torch.tensor([1, 2])
    labels[1:11] = 3
    monkeypatch.setattr(overlay, "semantic_labels", lambda *args, **kwargs: labels)
    monkeypatch.setattr(overlay, "load_segmenter", lambda model: (stock_segformer(), SMALL))
    monkeypatch.setattr("hf_models.cli.common.check_model", lambda model: None)
    out = tmp_path / "overlay.png"
    arguments = ["segment", str(picture), "--model", "any", "--out", str(out)]
    assert CliRunner().invoke(app, arguments).stdout.splitlines() == [
        " 79.9%  LABEL_0",
        " 20.0%  LABEL_3",
        "and 2 others below 0.1%",
    ]
    assert len(json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)) == 4


@pytest.mark.parametrize(
    "options", [[], pytest.param(["--multi-scale"], marks=pytest.mark.slow)], ids=["one scale", "multi-scale"]
)
def test_memory_of_a_large_photo(options, tmp_path):
    """6 megapixels and 150 classes: all scores together would take 3.6 GB."""
    make_model(tmp_path / "model")
    photo(3000, 2000).save(tmp_path / "photo.jpg")
    arguments = ["segment", "photo.jpg", "--model", "model", "--out", "overlay.png", "--device", "cpu", *options]
    assert peak_memory(*arguments, cwd=tmp_path) < 1.0e6


@pytest.mark.parametrize("folder", KINDS[:1], ids=["upernet"], indirect=True)
def test_overlay_blends_image_and_colours(folder, picture, tmp_path):
    original = np.array(Image.open(picture)).astype(int)
    shown = {}
    for alpha in (0.0, 0.5, 1.0):
        out = tmp_path / f"{alpha}.png"
        segment_image(picture, folder, out, alpha=alpha)
        shown[alpha] = np.array(Image.open(out)).astype(int)[:50, :75]
    assert (shown[0.0] == original).all()
    assert np.abs(shown[0.5] - (original + shown[1.0]) / 2).max() <= 1
    model, recipe = load_segmenter(folder)
    classes = semantic_scores(model, photo(), recipe).argmax(0).numpy()
    for label in np.unique(classes):
        assert len(np.unique(shown[1.0][classes == label], axis=0)) == 1


@pytest.mark.parametrize("folder", KINDS[:1], ids=["upernet"], indirect=True)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "missing.png"}, "missing.png: no such file"),
        ({"out": "overlay.txt"}, "not a name of an image file"),
        ({"out": "none/overlay.png"}, "none/overlay.png: there is no folder none"),
        ({"alpha": "1.5"}, "--alpha must lie in [0, 1], got 1.5"),
        ({"model": "/dev/null/none"}, "cannot be loaded as a segmentation model"),
    ],
)
def test_segment_errors(folder, picture, tmp_path, monkeypatch, change, message):
    """One line, before anything is loaded."""
    monkeypatch.chdir(tmp_path)
    given = {"image": "photo.png", "out": "overlay.png", "alpha": "0.5", "model": str(folder)} | change
    options = [part for name in ("model", "out", "alpha") for part in (f"--{name}", given[name])]
    result = CliRunner().invoke(app, ["segment", given["image"], *options])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png"]
