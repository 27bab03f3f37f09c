"""Fine-tuning of segmentation models, on a tiny folder of generated photos with masks."""

import importlib
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, Mask2FormerConfig
from transformers import Mask2FormerForUniversalSegmentation as Mask2Former

from hf_models import default_checkpoint
from hf_models.errors import InputError
from hf_models.segmentation import SegmentationRecipe, load_segmenter
from hf_models.segmentation.masks import IGNORED
from hf_models.segmentation.overlay import segment_image

from ..harness.finetune_tester import (
    EXAMPLES,
    assert_same_weights,
    history,
    one_thread,
    run_two,
    start,
    tiny_classifier,
    to_rounding,
)

pytest.importorskip("accelerate")
COLOURS = {"sky": (90, 140, 230), "grass": (40, 160, 50), "car": (220, 30, 30)}


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module("finetune_segmentation")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_classifier(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Photos of two sizes: sky above grass, and a car; beside the car nothing is labelled (3)."""
    random, root = np.random.default_rng(0), tmp_path_factory.mktemp("scenes")
    for part, count in (("train", 8), ("val", 3)):
        for kind in ("images", "annotations"):
            (root / kind / part).mkdir(parents=True)
        for index in range(count):
            height, width = (48, 64) if index % 2 else (64, 48)
            mask = np.zeros((height, width), np.uint8)
            mask[random.integers(height // 4, height // 2) :] = 1
            left = random.integers(4, width - 24)
            mask[height // 2 : height - 8, left : left + 20] = 2
            pixels = np.array(list(COLOURS.values()))[mask] + random.normal(0, 12, (height, width, 3))
            mask[height // 2 : height - 8, left - 2 : left] = 3
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / part / f"{index}.png")
            Image.fromarray(mask).save(root / "annotations" / part / f"{index}.png")
    return root


@pytest.fixture
def options(tiny):
    with one_thread():
        yield {
            **{"model": tiny, "classes": list(COLOURS), "ignore_label": 3, "width": 8},
            **{"image_size": 48, "crop_size": 32},
            **{"num_train_epochs": 3, "per_device_train_batch_size": 4, "learning_rate": 5e-3, "ema": 0.9},
        }


def test_learns_scenes_from_the_embedded_backbone(example, scenes, options, tmp_path):
    options |= {"model": str(default_checkpoint()), "width": 32, "learning_rate": 0.02, "ema": 0.5}
    options |= {"bf16": True, "gradient_checkpointing": True, "freeze_stages": 1, "layer_decay": 0.7}
    # on fewer positions than those of 64 pixels, the last layer samples beside them, and learns nothing
    options |= {"num_train_epochs": 5, "head": "segformer", "image_size": 64, "crop_size": 64}
    output = tmp_path / "model"
    measured = example.finetune(str(scenes), output, **options)
    assert measured["mIoU"] > 60 and set(measured) == {"mIoU", "mAcc", "aAcc", *(f"IoU {name}" for name in COLOURS)}
    names = {path.name for path in Path(f"{output}-run").iterdir()}
    assert {"curves.png", "prediction-1.jpg", "prediction-2.jpg", "prediction-3.jpg"} <= names
    photo = scenes / "images" / "val" / "0.png"
    assert {entry["label"] for entry in segment_image(photo, output, tmp_path / "overlay.png")} == set(COLOURS)
    trained = load_segmenter(output)[0].backbone.state_dict()
    before = example.build(options["model"], ["a", "b"], "segformer", 8, None).backbone.state_dict()
    same = {name for name, value in trained.items() if torch.equal(value, before[name])}
    assert same == {name for name in trained if "embeddings" in name or "stages.0" in name}


def test_a_killed_run_goes_on_to_the_same_weights(example, scenes, options, tmp_path):
    options["head"] = "segformer"  # drops channels at random
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    measured = example.finetune(str(scenes), whole, **options)

    # in the third epoch of two steps
    child = start(
        "finetune_segmentation", tmp_path, {"data": str(scenes), "output": str(broken), **options}, kill_at=5
    )
    assert child.wait() == -signal.SIGKILL and not broken.exists()
    run = Path(f"{broken}-run")
    shutil.copytree(run / "checkpoint-4", run / "checkpoint-6")  # as if it had been killed while it wrote that
    (run / "checkpoint-6" / "trainer_state.json").write_text('{"best')
    assert example.finetune(str(scenes), broken, resume=True, **options) == to_rounding(measured)
    for of_broken, of_whole in zip(*(history(name, "eval_mIoU") for name in (broken, whole)), strict=True):
        assert of_broken == to_rounding(of_whole)
    assert_same_weights(*(load_segmenter(folder)[0] for folder in (whole, broken)))
    with pytest.raises(SystemExit, match="Go on with --resume"):
        example.finetune(str(scenes), broken, **options)
    (run / "checkpoint-6" / "average.pt").unlink()
    with pytest.raises(InputError, match=r"checkpoint-6: has no moving average. Resume with --ema 0"):
        example.finetune(str(scenes), broken, resume=True, **options)


def test_two_processes_are_one_with_twice_the_batch(example, scenes, options, tmp_path):
    example.finetune(str(scenes), tmp_path / "one", **options)
    options |= {"data": str(scenes), "output": str(tmp_path / "two"), "per_device_train_batch_size": 2}
    assert run_two("finetune_segmentation", tmp_path, options) == [0, 0]
    for one, two in zip(*(history(tmp_path / name, "eval_mIoU") for name in ("one", "two")), strict=True):
        assert one.keys() == two.keys() and list(one.values()) == pytest.approx(list(two.values()), rel=1e-4)
    assert_same_weights(*(load_segmenter(tmp_path / name)[0] for name in ("one", "two")))


def test_a_segmentation_model_gets_a_new_last_layer(example, scenes, options, tmp_path):
    example.finetune(str(scenes), tmp_path / "three", **options | {"num_train_epochs": 1})
    options |= {"model": str(tmp_path / "three"), "image_size": None, "num_train_epochs": 1, "ema": 0.0}
    for part in ("images", "annotations"):
        shutil.copytree(scenes / part, tmp_path / "data" / part)
    for mask in (tmp_path / "data" / "annotations").rglob("*.png"):  # counted from 1, and without cars
        classes = np.array(Image.open(mask))
        Image.fromarray(np.array([1, 2, 0, 255], np.uint8)[classes]).save(mask)
    two = options | {"classes": ["above", "below"], "ignore_label": 0, "learning_rate": 1e-9}
    example.finetune(str(tmp_path / "data"), tmp_path / "two", **two)
    (one, recipe), (other, _) = load_segmenter(tmp_path / "three"), load_segmenter(tmp_path / "two")
    assert other.config.id2label == {0: "above", 1: "below"} and recipe.short_edge == 48
    named = one.state_dict()
    changed = {name for name, value in other.state_dict().items() if value.shape != named[name].shape}
    assert changed == {"decode_head.classifier.weight", "decode_head.classifier.bias"}
    assert all(
        torch.allclose(value, named[name], atol=1e-6)
        for name, value in other.named_parameters()
        if name not in changed
    )


def test_mask2former_trains_with_its_own_loss(example, scenes, options, tmp_path):
    backbone = AutoConfig.from_pretrained(options["model"])
    backbone.out_features = backbone.stage_names
    small = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim"), 32)
    small |= {"dim_feedforward": 32, "encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2}
    small |= {"num_queries": 4, "train_num_points": 64, "feature_strides": [4, 4, 8], "num_labels": 7}
    Mask2Former(Mask2FormerConfig(backbone_config=backbone, **small)).save_pretrained(tmp_path / "queries")
    options["model"] = str(tmp_path / "queries")
    example.finetune(str(scenes), tmp_path / "model", **options)
    losses = [entry["loss"] for entry in history(tmp_path / "model") if "loss" in entry]
    assert losses[-1] < losses[0] and load_segmenter(tmp_path / "model")[0].config.num_labels == 3
    crops = [{"pixel_values": torch.zeros(3, 2, 2), "labels": torch.tensor([[1, -100], [0, 1]])}]
    batch = example.masks_of_classes(crops)
    assert batch["class_labels"][0].tolist() == [0, 1]
    assert batch["mask_labels"][0].tolist() == [[[0, 0], [1, 0]], [[1, 0], [0, 1]]]


@pytest.fixture
def copy(scenes, tmp_path):
    return shutil.copytree(scenes, tmp_path / "copy")


@pytest.fixture
def refused(example, copy, options, tmp_path):
    """Checks what is said of the copy of the scenes, in one line."""

    def check(message, **others):
        with pytest.raises(InputError, match=message) as raised:
            example.finetune(str(copy), tmp_path / "model", **options | others)
        assert str(raised.value).isprintable()

    return check


def test_options_that_do_not_fit_the_data_are_refused(refused):
    refused("--ignore-label 9: give 0 if the classes count from 1, or 3, the number after theirs", ignore_label=9)
    refused(r"annotations/train/\d.png: label 3 outside 0..2", ignore_label=None)
    refused("8 photos to train on, a batch has 16. Pass a smaller --batch-size", per_device_train_batch_size=16)
    refused("--batch-size 1: a BatchNorm of UperNet needs two photos", per_device_train_batch_size=1)
    refused("no-model: no such folder", model="no-model")


def test_a_class_that_is_validated_only_is_refused(refused, copy):
    for mask in (copy / "annotations" / "train").iterdir():
        labels = np.array(Image.open(mask))
        Image.fromarray(np.where(labels == 2, 3, labels).astype(np.uint8)).save(mask)
    refused("annotations/val/0.png: has class 2, car, which is in no mask to train on")


def test_photos_without_masks_are_refused(refused, copy):
    (copy / "annotations" / "train" / "5.png").unlink()
    refused(r"images/train/5.png: has no mask .*annotations/train/5.png")
    shutil.rmtree(copy / "images" / "train")
    refused("no images in .*images/train")


def test_a_mask_of_another_size_is_named(refused, copy):
    Image.new("L", (20, 10)).save(copy / "annotations" / "train" / "3.png")
    refused("annotations/train/3.png: 20 x 10 pixels, its image has 64 x 48")


def test_damaged_photos_are_named_and_skipped_on_demand(example, refused, copy, options, tmp_path, capsys):
    for photo in ("train/6.png", "val/1.png"):
        path = copy / "images" / photo
        path.write_bytes(path.read_bytes()[:900])
    refused(r"images/train/6.png: cannot be read completely .* Or pass --skip-bad-images")
    shutil.rmtree(tmp_path / "model-run")
    example.finetune(str(copy), tmp_path / "model", skip_bad_images=True, **options)
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped: " in line]
    assert len(lines) == 2 and "train/6.png" in lines[0] and "val/1.png" in lines[1]


def test_crops_move_photo_and_mask_alike(example, monkeypatch):
    data = sys.modules[example.MaskedPhotos.__module__]
    monkeypatch.setattr(sys.modules["training_photos"], "JITTER", 0)
    recipe = SegmentationRecipe(short_edge=48)
    column = np.tile(np.arange(60, dtype=np.uint8), (48, 1))
    photo = Image.fromarray(np.stack([4 * column, 0 * column, 0 * column], axis=2))
    filled = []
    for seed in range(20):
        image, mask = data.crop(photo, column, recipe, 40, np.random.default_rng(seed))
        again, _ = data.crop(photo, column, recipe, 40, np.random.default_rng(seed))
        assert image.size == mask.size == (40, 40) and image == again
        red, mask = np.array(image)[..., 0], np.array(mask)
        inside = mask != IGNORED
        assert np.abs(red[inside] / 4 - mask[inside]).max() < 0.8
        assert (np.array(image)[~inside] == [124, 116, 104]).all()
        filled.append(inside.mean())
    assert min(filled) < 1 and np.median(filled) == 1


def test_rare_classes_weigh_more_by_balance(example):
    pixels = np.array([900, 90, 0, 10])
    assert example.PixelLoss(pixels, 0.0).weight.tolist() == pytest.approx([1, 1, 1, 1])
    alike = example.PixelLoss(pixels, 1.0).weight * torch.tensor(pixels)
    assert alike[[0, 1, 3]].tolist() == pytest.approx([1000 / 3] * 3)
    weight = example.PixelLoss(pixels, 0.5).weight
    assert weight[3] / weight[0] == pytest.approx(90**0.5)
