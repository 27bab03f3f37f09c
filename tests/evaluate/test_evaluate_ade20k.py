"""`hf-models evaluate ade20k`: metrics equal to an independent computation, and every refusal.

HF_MODELS_ADE20K names a folder ADEChallengeData2016 with real images, to measure on these too.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import (
    AutoModelForSemanticSegmentation,
)
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.evaluate import ade20k
from hf_models.evaluate.segmentation_metrics import metrics as mean_metrics
from hf_models.segmentation.preparation import prepare_image

from ..harness.evaluation_tester import RECIPE, SIZES, make_folder, make_model

REAL = os.environ.get("HF_MODELS_ADE20K")
MODES = {
    "whole": ([], [1.0], False),
    "whole, scales, flip": (["--scales", "0.5,1,1.5", "--flip"], [0.5, 1.0, 1.5], True),
    "slide": (["--mode", "slide", "--crop", "32", "--stride", "24"], [1.0], False),
    "slide, scales": (["--mode", "slide", "--crop", "32", "--stride", "24", "--scales", "1,1.25"], [1.0, 1.25], False),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "ADEChallengeData2016")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["evaluate", "ade20k", "--device", "cpu", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def windows(side, crop, stride):
    """First pixels of the windows: every `stride`, the last one moved so that it ends with the image."""
    return [*range(0, side - crop, stride), side - crop]


def scores(model, pixels, slide):
    """Logits at every pixel, (150, H, W)."""
    if not slide:
        return F.interpolate(model(pixels).logits, pixels.shape[-2:], mode="bilinear")[0]
    total, count = torch.zeros(150, *pixels.shape[-2:]), torch.zeros(pixels.shape[-2:])
    for top in windows(pixels.shape[-2], 32, 24):
        for left in windows(pixels.shape[-1], 32, 24):
            inside = (..., slice(top, top + 32), slice(left, left + 32))
            total[inside] += scores(model, pixels[inside], slide=False)
            count[inside] += 1
    return total / count


@torch.inference_mode()
def independent(folder, data, slide, scales, flip):
    """mIoU, mAcc, aAcc and the IoU of each class, from a confusion matrix."""
    model = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    confusion = np.zeros((150, 150))
    for path in sorted((Path(data) / "images" / "validation").iterdir()):
        image = Image.open(path).convert("RGB")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        probabilities = []
        for scale in scales:
            scaled = prepare_image(pixels, RECIPE, scale)
            views = [scores(model, scaled, slide)]
            if flip:
                views.append(scores(model, scaled.flip(3), slide).flip(2))
            probabilities += [
                F.interpolate(view[None], image.size[::-1], mode="bilinear")[0].softmax(0) for view in views
            ]
        predicted = torch.stack(probabilities).mean(0).argmax(0).numpy()
        mask = np.array(Image.open(Path(data) / "annotations" / "validation" / f"{path.stem}.png")).astype(int) - 1
        np.add.at(confusion, (mask[mask >= 0], predicted[mask >= 0]), 1)
    right, labelled, answered = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        iou, accuracy = right / (labelled + answered - right), right / labelled
    return {"mIoU": np.nanmean(iou), "mAcc": np.nanmean(accuracy), "aAcc": right.sum() / confusion.sum()}, iou


def compare(model, data, mode, captured):
    options, scales, flip = MODES[mode]
    found = json.loads(run("--model", model, "--data", data, "--subset", "--json", *options).stdout)
    expected, iou = independent(model, data, mode.startswith("slide"), scales, flip)
    for name, value in expected.items():
        assert captured[-1][0][name] / 100 == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(np.array(captured[-1][1]) / 100, iou, atol=1e-9)
    for row in found["rows"]:
        assert float(row["value"]) == pytest.approx(100 * expected[row["metric"].removeprefix("subset ")], abs=1e-4)
    assert len(found["iou"]) == 150 and None in found["iou"].values()
    assert 0 < expected["mIoU"] < expected["mAcc"] < 1
    return found


@pytest.fixture
def captured(monkeypatch):
    """The metrics before they are rounded for the results."""
    calls = []
    monkeypatch.setattr(ade20k, "metrics", lambda sums: calls.append(mean_metrics(sums)) or calls[-1])
    return calls


@pytest.mark.parametrize("mode", MODES)
def test_equal_to_an_independent_computation(mode, model, folder, captured):
    found = compare(model, folder, mode, captured)
    assert found["rows"][0]["data"] == "ADEChallengeData2016 validation, 4 images"
    options = {"slide": "slide 32/24", "whole, scales, flip": "whole, scales 0.5 1 1.5, flip"}
    assert found["rows"][0]["options"] == options.get(mode, found["rows"][0]["options"])


@pytest.mark.skipif(not REAL, reason="HF_MODELS_ADE20K names no folder ADEChallengeData2016")
@pytest.mark.parametrize("mode", MODES)
def test_equal_to_an_independent_computation_on_real_images(mode, model, captured):
    compare(model, REAL, mode, captured)


def test_a_class_that_is_nowhere_is_left_out():
    # three classes: 6 and 2 pixels labelled, 4 + 2 right, the third neither labelled nor predicted
    means, iou = mean_metrics(np.array([[4, 2, 0], [4, 4, 0], [6, 2, 0]]))
    assert iou[:2] == pytest.approx([100 * 4 / 6, 100 * 2 / 4]) and np.isnan(iou[2])
    assert means == pytest.approx({"mIoU": 100 * 7 / 12, "mAcc": 100 * 5 / 6, "aAcc": 75})


def test_columns_of_masks(model, folder, tmp_path):
    expected = run("--model", model, "--data", folder, "--subset", "--json").stdout
    table = tmp_path / "validation.parquet"
    files = {
        part: [str(path) for path in sorted((folder / part / "validation").iterdir())]
        for part in ("images", "annotations")
    }
    features = datasets.Features({"photo": datasets.Image(), "segments": datasets.Image()})
    columns = {"photo": files["images"], "segments": files["annotations"]}
    encoded = {
        name: [{"bytes": Path(path).read_bytes(), "path": None} for path in paths] for name, paths in columns.items()
    }
    datasets.Dataset.from_dict(encoded, features=features).to_parquet(table)
    names = "--image-column", "photo", "--mask-column", "segments"
    found = run("--model", model, "--data", table, "--subset", "--json", *names).stdout
    assert json.loads(found)["iou"] == json.loads(expected)["iou"]
    (line,) = run("--model", model, "--data", table, "--subset", code=2).stderr.splitlines()
    assert "no column of the image is found among photo, segments" in line


def test_killed_and_resumed_by_two_processes(model, tmp_path):
    data = make_folder(tmp_path / "ADE", SIZES * 8)
    expected = json.loads(run("--model", model, "--data", data, "--subset", "--json").stdout)
    path, journal = tmp_path / "ade20k.csv", tmp_path / "ade20k.csv.progress-0.jsonl"
    options = [str(o) for o in ("--model", model, "--data", data, "--subset", "--results", path)]
    command = ["-m", "hf_models.cli", "evaluate", "ade20k", "--device", "cpu", *options]
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not path.exists()
    assert 3 <= journal.read_bytes().count(b"\n") - 1 < 32
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    resumed = subprocess.run(
        [*launch, "--resume", "--json"], capture_output=True, text=True, env=environment, timeout=200
    )
    assert resumed.returncode == 0, resumed.stderr
    found = json.loads(resumed.stdout)
    assert found["iou"] == expected["iou"]
    assert [row["value"] for row in read_csv(path)] == [row["value"] for row in expected["rows"]]
    assert {row["n"] for row in read_csv(path)} == {"32"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ADE", "ade20k.csv"]


def mask_path(root):
    return root / "annotations" / "validation" / "ADE_val_00000002.png"


def unlabelled(root):
    for path in (root / "annotations" / "validation").iterdir():
        Image.new("L", Image.open(path).size).save(path)


@pytest.mark.parametrize(
    ("spoil", "options", "words"),
    [
        (unlabelled, [], "no mask labels a pixel"),
        (lambda root: mask_path(root).unlink(), [], "ADE_val_00000002.png: no such file"),
        (lambda root: None, ["--no-reduce-zero-label"], "label 150 outside 0..149 (255 = ignored)"),
        (lambda root: None, ["--split", "training"], "training: no images"),
        (lambda root: None, ["--mode", "tiles"], "tiles: no such mode. Choose from whole, slide."),
        (lambda root: None, ["--scales", "1,big"], "--scales: expected numbers"),
        (lambda root: None, ["--scales", "0"], "--scales: expected numbers above 0"),
        (lambda root: None, ["--mode", "slide", "--crop", "32", "--stride", "33"], "--stride: expected 1 to 32"),
        (lambda root: None, ["--crop", "32"], "Pass --mode slide"),
        (lambda root: None, ["--mask-column", "mask"], "no column mask"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(spoil, options, words, model, tmp_path):
    data = make_folder(tmp_path / "ADE")
    Image.fromarray(np.full((64, 64), 150, dtype=np.uint8)).save(mask_path(data))
    spoil(data)
    before = sorted(tmp_path.rglob("*"))
    results = tmp_path / "ade20k.csv"
    result = run("--model", model, "--data", data, "--subset", "--results", results, *options, code=2)
    (line,) = result.stderr.splitlines()
    assert words in line
    assert sorted(tmp_path.rglob("*")) == before


def test_only_the_validation_set_is_called_ade20k(model, folder, tmp_path):
    (line,) = run("--model", model, "--data", folder, code=2).stderr.splitlines()
    assert "4 images, those of ADE20K's validation are 2,000. Nothing evaluated." in line
    rows = json.loads(run("--model", model, "--data", folder, "--limit", 2, "--json").stdout)["rows"]
    assert {row["metric"] for row in rows} == {"subset mIoU", "subset mAcc", "subset aAcc"}
    assert rows[0]["data"] == "ADEChallengeData2016 validation, 2 images"
    small = make_model(tmp_path / "model", num_labels=21)
    (line,) = run("--model", small, "--data", folder, "--subset", code=2).stderr.splitlines()
    assert line == f"{small}: predicts 21 classes, ADE20K has 150."


def test_the_embedded_checkpoint_is_no_segmentation_model(folder):
    (line,) = run("--model", "default", "--data", folder, "--subset", code=2).stderr.splitlines()
    assert "default: is for image-classification, not for image-segmentation" in line
