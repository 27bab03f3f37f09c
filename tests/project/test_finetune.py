"""The fine-tuning example, on a tiny folder of generated images."""

import importlib
import importlib.util
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

from hf_models import default_checkpoint
from hf_models.errors import InputError
from hf_models.inference import classify_images

pytest.importorskip("accelerate")
EXAMPLE = Path(__file__).parents[2] / "examples" / "finetune.py"
COLOURS = {"blue": (20, 40, 220), "green": (20, 200, 40), "red": (220, 30, 20)}


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(EXAMPLE.parent))
    spec = importlib.util.spec_from_file_location("finetune", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_parquet_splits_are_read_and_the_test_split_is_measured(example, folder, tmp_path, monkeypatch):
    rows = example.datasets.load_dataset("imagefolder", data_dir=folder, split="train").shuffle(seed=0)
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


@pytest.mark.parametrize(("images", "validated"), [({"a": 5, "b": 5}, 2), ({"a": 1, "b": 4, "c": 30}, 4)])
def test_few_images_are_split_by_class(example, images, validated):
    labels = [index for index, count in enumerate(images.values()) for _ in range(count)]
    parts = example.split(example.datasets.Dataset.from_dict({"label": labels}))
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
    with pytest.raises(InputError, match=r"red/3.png: cannot be read completely"):
        example.finetune(folder, tmp_path / "model", resume=False, **settings)


def test_deeper_layers_learn_faster_and_frozen_stages_stay(example):
    model = AutoModelForImageClassification.from_pretrained(default_checkpoint())
    depths = list(model.config.depths)
    decay = importlib.import_module("layer_decay")
    rate_of = {
        parameter: group["lr"]
        for group in decay.parameter_groups(model, depths, 1.0, 0.05, layer_decay=0.5)
        for parameter in group["params"]
    }
    named = dict(model.named_parameters())
    rates = {name: rate_of[parameter] for name, parameter in named.items()}
    last = sum(depths) + 1
    assert rates["classifier.weight"] == 1
    assert rates["flash_internimage.embeddings.conv1.weight"] == 0.5**last
    assert rates[f"flash_internimage.encoder.stages.2.layers.{depths[2] - 1}.mlp.fc1.weight"] == 0.5
    assert rates["flash_internimage.encoder.stages.1.downsample.conv.weight"] == 0.5 ** (last - 1 - depths[0])
    decay.freeze(model, depths, 2)
    trained = {name for name, parameter in named.items() if parameter.requires_grad}
    assert trained == {name for name in named if "stages.2" in name or "pooler" in name or "classifier" in name}
