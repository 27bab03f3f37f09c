"""The fine-tuning example, on a tiny folder of generated images."""

import importlib
import io
import signal
import sys
import tarfile
from pathlib import Path
from unittest import mock

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoBackbone, AutoConfig, AutoModelForImageClassification, TrainingArguments, pipeline

from hf_models import default_checkpoint
from hf_models.errors import InputError
from hf_models.inference import classify_images
from hf_models.memory.dry_run import config_of, empty_model

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
COLOURS = {"blue": (20, 40, 220), "green": (20, 200, 40), "red": (220, 30, 20)}


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module("finetune")


@pytest.fixture
def folder(tmp_path):
    """Noisy pictures of three colours, 20 of each, in class folders."""
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(np.array(colour) + random.normal(0, 30, (48, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    return str(tmp_path / "data")


def test_learns_colours_and_resumes(example, folder, tmp_path, monkeypatch):
    settings = {"model": str(default_checkpoint()), "image_size": None, "learning_rate": 1e-3}
    settings["per_device_train_batch_size"] = 9
    output = tmp_path / "model"
    measured = example.finetune(folder, output, num_train_epochs=2, resume=False, **settings)
    assert measured["balanced_accuracy"] == 1 and Path(f"{output}-run", "curves.png").is_file()
    model = AutoModelForImageClassification.from_pretrained(output)
    assert model.config.id2label == dict(enumerate(COLOURS))
    picture = Image.new("RGB", (60, 50), COLOURS["green"])
    assert pipeline("image-classification", model=str(output))(picture, top_k=1)[0]["label"] == "green"
    with pytest.raises(SystemExit, match="--resume"):
        example.finetune(folder, output, num_train_epochs=2, resume=False, **settings)
    step, steps = example.FineTuner.training_step, []
    monkeypatch.setattr(example.FineTuner, "training_step", lambda *args: steps.append(1) or step(*args))
    example.finetune(folder, output, num_train_epochs=3, resume=True, **settings)
    assert len(steps) == 6, "the third epoch alone"


@pytest.fixture
def options(tmp_path):
    with one_thread():
        yield {
            **{"model": tiny_classifier(tmp_path / "tiny"), "image_size": 32, "num_train_epochs": 2, "ema": 0.9},
            **{"per_device_train_batch_size": 18, "learning_rate": 5e-3},
        }


def assert_same_curves(one: Path, two: Path):
    for of_one, of_two in zip(*(history(name, "eval_balanced_accuracy") for name in (one, two)), strict=True):
        assert of_one == to_rounding(of_two)


def test_two_processes_are_one_with_twice_the_batch(example, folder, options, tmp_path):
    """The weights are not compared: AdamW moves a bias before a BatchNorm by the rounding of its gradient."""
    example.finetune(folder, tmp_path / "one", **options)
    options |= {"data": folder, "output": str(tmp_path / "two"), "per_device_train_batch_size": 9}
    assert run_two("finetune", tmp_path, options) == [0, 0]
    assert_same_curves(tmp_path / "one", tmp_path / "two")


def test_a_killed_run_goes_on_to_the_same_weights(example, folder, options, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    measured = example.finetune(folder, whole, **options)
    child = start("finetune", tmp_path, {"data": folder, "output": str(broken), **options}, kill_at=4)
    assert child.wait() == -signal.SIGKILL and not broken.exists()
    for others in ({"learning_rate": 1e-3}, {"layer_decay": 0.9}, {"freeze_stages": 1}):
        with pytest.raises(InputError, match="broken-run: begun with another --learning-rate, --layer-decay or"):
            example.finetune(folder, broken, resume=True, **options | others)
    assert example.finetune(folder, broken, resume=True, **options) == to_rounding(measured)
    assert_same_curves(whole, broken)
    assert_same_weights(*(AutoModelForImageClassification.from_pretrained(name) for name in (whole, broken)))


def test_parquet_splits_are_read_and_the_test_split_is_measured(example, folder, tmp_path, monkeypatch):
    rows = datasets.load_dataset("imagefolder", data_dir=folder, split="train").shuffle(seed=0)
    sizes = {"train": range(40), "validation": range(40, 46), "test": range(46, 60)}
    (tmp_path / "parquet").mkdir()
    for split, chosen in sizes.items():
        rows.select(chosen).to_parquet(tmp_path / "parquet" / f"{split}.parquet")
    evaluate, measured = example.FineTuner.evaluate, []
    monkeypatch.setattr(
        example.FineTuner, "evaluate", lambda *args, **kwargs: measured.append(args[1:]) or evaluate(*args, **kwargs)
    )
    settings = {"model": str(default_checkpoint()), "num_train_epochs": 1, "ema": 0.9, "gradient_checkpointing": True}
    example.finetune(str(tmp_path / "parquet"), tmp_path / "model", image_size=96, resume=False, **settings)
    while_training, (test,) = measured
    assert not while_training and len(test) == 14
    processor = example.AutoImageProcessor.from_pretrained(tmp_path / "model")
    assert processor(Image.new("RGB", (60, 50)), return_tensors="pt").pixel_values.shape[2:] == (96, 96)


def test_shards_are_streamed(example, folder, tmp_path, monkeypatch):
    rows = example.load(folder)
    (tmp_path / "shards").mkdir()
    rows["validation"].to_parquet(tmp_path / "shards" / "validation.parquet")
    for i in range(2):
        with tarfile.open(tmp_path / "shards" / f"train-{i}.tar", "w") as tar:
            for number, row in enumerate(rows["train"].shard(2, i)):
                files = {"png": Path(row["image"]["path"]).read_bytes(), "cls": str(row["label"]).encode()}
                for suffix, content in files.items():
                    member = tarfile.TarInfo(f"{number}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    steps = []
    step = example.FineTuner.training_step
    monkeypatch.setattr(
        example.FineTuner,
        "training_step",
        lambda self, model, inputs, *args: steps.append(len(inputs["labels"])) or step(self, model, inputs, *args),
    )
    settings = {
        "model": str(default_checkpoint()),
        "image_size": 32,
        "per_device_train_batch_size": 12,
        "stream": True,
    }
    example.finetune(str(tmp_path / "shards"), tmp_path / "model", num_train_epochs=1, **settings)
    assert steps == [12, 12, 12, 12, 6]
    damaged = tmp_path / "shards" / "train-1.tar"
    damaged.write_bytes(damaged.read_bytes().replace(b"IDAT", b"IDAX", 1))
    with pytest.raises(InputError, match=r"train-1\.tar, row 0, 0\.png: not an image"):
        example.finetune(str(tmp_path / "shards"), tmp_path / "again", num_train_epochs=1, **settings)


def test_balanced_accuracy_weighs_classes_alike(example):
    logits = np.eye(3)[[0, 0, 0, 0]]
    result = example.EvalPrediction(predictions=logits, label_ids=np.array([0, 0, 0, 2]))
    assert example.metrics(result) == {"accuracy": 0.75, "balanced_accuracy": 0.5}
    skipped = example.EvalPrediction(predictions=np.eye(3)[[0, 0, 0, 0, 0]], label_ids=np.array([0, 0, 0, 2, -100]))
    assert example.metrics(skipped) == {"accuracy": 0.75, "balanced_accuracy": 0.5}


@pytest.mark.parametrize(("images", "validated"), [({"a": 5, "b": 5}, 2), ({"a": 1, "b": 4, "c": 30}, 4)])
def test_few_images_are_split_by_class(example, images, validated):
    labels = [index for index, count in enumerate(images.values()) for _ in range(count)]
    parts = sys.modules["classification_data"].split(datasets.Dataset.from_dict({"label": labels}))
    assert len(parts["validation"]) == validated and len(parts["train"]) == len(labels) - validated
    assert set(parts["train"]["label"]) == set(range(len(images)))


def photos(folder, *names):
    """Class folders of two pictures each."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (8, 8)).save(folder / name / f"{index}.png")
    return str(folder)


@pytest.mark.parametrize("name", ["train", "bullet train", "test", "validation", "dev"])
def test_a_class_may_be_called_like_a_split(example, tmp_path, name):
    rows = example.load(photos(tmp_path / "photos", "bus", "car", name))
    assert set(rows) == {"train", "validation"} and all(len(part) == 3 for part in rows.values())
    assert rows["train"].features["label"].names == sorted(["bus", "car", name])


def test_photos_that_would_be_left_out_are_refused(example, folder):
    Image.new("RGB", (16, 16)).save(Path(folder) / "red" / "web.AVIF")
    with pytest.raises(SystemExit, match=r"web\.AVIF: such photos are left out, 1 in all"):
        example.load(folder)


def test_folders_of_splits_are_splits(example, tmp_path):
    photos(tmp_path / "photos" / "train", "bus", "test tube", "train")
    photos(tmp_path / "photos" / "val", "bus")
    photos(tmp_path / "photos" / "test", "bus", "train")
    rows = example.load(str(tmp_path / "photos"))
    assert {split: len(part) for split, part in rows.items()} == {"train": 6, "validation": 2, "test": 4}
    assert rows["test"].features["label"].names == ["bus", "test tube", "train"]


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(example, folder, tmp_path, channels):
    example.finetune(
        folder,
        tmp_path / "model",
        model=str(default_checkpoint()),
        image_size=None,
        resume=False,
        channels=channels,
        num_train_epochs=1,
    )
    (labels,) = classify_images([Path(folder) / "red" / "0.png"], tmp_path / "model")
    assert {entry["label"] for entry in labels} == set(COLOURS)
    assert example.AutoImageProcessor.from_pretrained(tmp_path / "model").channels == channels


def test_a_damaged_image_is_named(example, folder, tmp_path):
    damaged = Path(folder) / "red" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:900])
    settings = {"model": str(default_checkpoint()), "image_size": 64, "num_train_epochs": 1}
    with pytest.raises(InputError, match=r"red/3.png: cannot be read completely.*Or pass --skip-bad-images"):
        example.finetune(folder, tmp_path / "model", resume=False, **settings)


def test_damaged_images_are_skipped_on_demand(example, folder, options, tmp_path, capsys):
    rows = example.load(folder)
    damaged = [Path(rows[split][0]["image"]["path"]) for split in ("train", "validation")]
    for file in damaged:
        file.write_bytes(file.read_bytes()[:900])
    measured = example.finetune(folder, tmp_path / "model", skip_bad_images=True, **options)
    assert 0 <= measured["accuracy"] <= 1
    said = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert len(said) == 2 and all(any(str(file) in line for line in said) for file in damaged)


def test_a_test_split_without_labels_is_not_measured(example, folder, tmp_path, capsys):
    rows = example.load(folder)
    for split in ("train", "validation"):
        rows[split].to_parquet(tmp_path / "hub" / f"{split}.parquet")
    rows["validation"].map(lambda row: {"label": -1}).to_parquet(tmp_path / "hub" / "test.parquet")
    assert set(example.load(str(tmp_path / "hub"))) == {"train", "validation"}
    assert "its test split has no labels, and the validation images are measured" in capsys.readouterr().err


def test_what_cannot_be_trained_is_refused_in_one_line(example, folder, options, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            datasets, "load_dataset", mock.Mock(side_effect=datasets.exceptions.DatasetNotFoundError("gone"))
        )
        with pytest.raises(SystemExit, match=r"no-data: no folder of images, and no data set .* can be read \(gone\)"):
            example.load("no-data")
    with pytest.raises(InputError, match="no-model: no such folder"):
        example.finetune(folder, tmp_path / "model", **options | {"model": "no-model"})
    with pytest.raises(InputError, match="--skip-bad-images: not with --stream"):
        example.finetune(folder, tmp_path / "model", **options, stream=True, skip_bad_images=True)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
        with pytest.raises(InputError, match=r"one process sees 2 GPUs\. Start it with torchrun"):
            example.finetune(folder, tmp_path / "model", **options)
    monkeypatch.setattr("fine_tuner.parse_flag_from_env", lambda name: name == "ACCELERATE_USE_FSDP")
    with pytest.raises(InputError, match=r"--ema: .* Pass --ema 0, or use DDP"):
        example.finetune(folder, tmp_path / "model", **options)
    assert not (tmp_path / "model-run").exists()


FAMILIES = ["internimage", "flash_internimage", "smt", "replknet", "cb_internimage", "convnext_dcnv4", "vit_dcnv4"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_depths(example, family):
    """Each layer has one of its own, between those of the embeddings and of the head."""
    config = AutoConfig.for_model(family)
    with torch.device("meta"):
        auto = AutoBackbone if family == "cb_internimage" else AutoModelForImageClassification
        model = auto.from_config(config)
    depths = importlib.import_module("layer_decay").Depths(model)
    layers = config.num_hidden_layers if family == "vit_dcnv4" else sum(config.depths)
    assert depths.known and depths.deepest == layers + 1
    head = {name for name, depth in depths.of.items() if depth == depths.deepest}
    assert all(name.partition(".")[0] == "classifier" or ".layers." not in name for name in head)
    led_to_third = {  # what leads to the third stage, whose depth is that of its first layer
        "cb_internimage": ("encoder.links.2.0", "encoder.lead.stages.2.down", "encoder.assistant.stages.2.down"),
        "convnext_dcnv4": ("convnext.encoder.stages.2.downsampling_layer",),
    }
    for lead in led_to_third.get(family, ()):
        found = {depth for name, depth in depths.of.items() if name.startswith(lead)}
        assert found == {1 + sum(config.depths[:2])}, lead


def test_a_head_lies_deepest(example):
    """Encoder and decoder of DINO have layers of their own."""
    model = empty_model(config_of("dino_4scale_cbinternimage_h_objects365_coco"))
    depths = importlib.import_module("layer_decay").Depths(model)
    head = {name for name in depths.of if not name.startswith("backbone.")}
    assert depths.known and any(".layers." in name for name in head)
    assert {depths.of[name] for name in head} == {depths.deepest}


def test_deeper_layers_learn_faster_and_frozen_stages_stay(example):
    prepare = importlib.import_module("layer_decay").prepare
    model = AutoModelForImageClassification.from_pretrained(default_checkpoint())
    depths, named = list(model.config.depths), dict(model.named_parameters())
    groups = prepare(model, 1.0, 0.05, layer_decay=0.5, freeze_stages=0)
    rate_of = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    rates = {name: rate_of[parameter] for name, parameter in named.items()}
    last = sum(depths) + 1
    assert rates["classifier.weight"] == 1
    assert rates["flash_internimage.embeddings.conv1.weight"] == 0.5**last
    assert rates[f"flash_internimage.encoder.stages.2.layers.{depths[2] - 1}.mlp.fc1.weight"] == 0.5
    assert rates["flash_internimage.encoder.stages.1.downsample.conv.weight"] == 0.5 ** (last - 1 - depths[0])
    prepare(model, 1.0, 0.05, layer_decay=1.0, freeze_stages=2)
    trained = {name for name, parameter in named.items() if parameter.requires_grad}
    assert trained == {name for name in named if "stages.2" in name or "pooler" in name or "classifier" in name}
    with pytest.raises(InputError, match=r"Linear has no stages that are known\. Leave them out"):
        linear = torch.nn.Linear(1, 1)
        linear.config = model.config
        prepare(linear, 1.0, 0.05, layer_decay=0.9, freeze_stages=0)
