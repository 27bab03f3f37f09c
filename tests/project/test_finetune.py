"""The fine-tuning example, on a tiny folder of generated images."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

pytest.importorskip("accelerate")
EXAMPLE = Path(__file__).parents[2] / "examples" / "finetune.py"
COLOURS = {"blue": (20, 40, 220), "green": (20, 200, 40), "red": (220, 30, 20)}


@pytest.fixture(scope="module")
def example():
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
    settings = {"model": str(example.hf_models.default_checkpoint()), "image_size": None, "learning_rate": 1e-3}
    settings["per_device_train_batch_size"] = 9
    output = tmp_path / "model"
    measured = example.finetune(folder, output, num_train_epochs=2, resume=False, **settings)
    assert measured["balanced_accuracy"] == 1
    model = AutoModelForImageClassification.from_pretrained(output)
    assert model.config.id2label == dict(enumerate(COLOURS))
    picture = Image.new("RGB", (60, 50), COLOURS["green"])
    assert pipeline("image-classification", model=str(output))(picture, top_k=1)[0]["label"] == "green"
    with pytest.raises(SystemExit, match="--resume"):
        example.finetune(folder, output, num_train_epochs=2, resume=False, **settings)
    step, steps = example.Trainer.training_step, []
    monkeypatch.setattr(example.Trainer, "training_step", lambda *args: steps.append(1) or step(*args))
    example.finetune(folder, output, num_train_epochs=3, resume=True, **settings)
    assert len(steps) == 6, "the third epoch alone"


def test_parquet_splits_are_read_and_the_test_split_is_measured(example, folder, tmp_path, monkeypatch):
    rows = example.datasets.load_dataset("imagefolder", data_dir=folder, split="train").shuffle(seed=0)
    sizes = {"train": range(40), "validation": range(40, 46), "test": range(46, 60)}
    (tmp_path / "parquet").mkdir()
    for split, chosen in sizes.items():
        rows.select(chosen).to_parquet(tmp_path / "parquet" / f"{split}.parquet")
    evaluate, measured = example.Trainer.evaluate, []
    monkeypatch.setattr(
        example.Trainer, "evaluate", lambda *args, **kwargs: measured.append(args[1:]) or evaluate(*args, **kwargs)
    )
    settings = {"model": str(example.hf_models.default_checkpoint()), "num_train_epochs": 1}
    example.finetune(str(tmp_path / "parquet"), tmp_path / "model", image_size=96, resume=False, **settings)
    while_training, (test,) = measured
    assert not while_training and len(test) == 14
    processor = example.AutoImageProcessor.from_pretrained(tmp_path / "model")
    assert processor(Image.new("RGB", (60, 50)), return_tensors="pt").pixel_values.shape[2:] == (96, 96)


def test_balanced_accuracy_weighs_classes_alike(example):
    logits = np.eye(3)[[0, 0, 0, 0]]
    result = example.EvalPrediction(predictions=logits, label_ids=np.array([0, 0, 0, 2]))
    assert example.metrics(result) == {"accuracy": 0.75, "balanced_accuracy": 0.5}
