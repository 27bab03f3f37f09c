"""`hf-models evaluate shape-bias`: decisions counted as in the original study, and every refusal."""

import csv
import json
import os
import subprocess
import sys
from importlib import import_module
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.evaluate.data.cue_conflict import find_stimuli, select_stimuli, shape_categories
from hf_models.evaluate.shape_bias import ShapeBiasEvaluation, shape_bias
from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.zoo import wnid_names

from ..harness.classification_tester import make_model

KNOWN = ["bear", "cat", "truck"]
WNIDS = list(wnid_names())
# the classes of each of KNOWN, all but one of the trucks', and others
CLASSES = [*WNIDS[:8], *(wnid for name in KNOWN for wnid in shape_categories()[name])][:-1]


def make_stimuli(root, categories=KNOWN, per_pair=1, size=(224, 224)):
    random = np.random.default_rng(0)
    for shape, texture in permutations(categories, 2):
        (root / shape).mkdir(parents=True, exist_ok=True)
        for number in range(1, per_pair + 1):
            pixels = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size)
            pixels.save(root / shape / f"{shape}{number}-{texture}{number}.png")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), [wnid_names()[wnid] for wnid in CLASSES])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = make_stimuli(tmp_path_factory.mktemp("data") / "stimuli", per_pair=4)
    Image.new("RGB", (224, 224)).save(root / "cat" / "cat1-cat2.png")  # no conflict, as 80 of the original's
    return root


def command(*arguments):
    return ["evaluate", "shape-bias", "--device", "cpu", *map(str, arguments)]


def run(*arguments, code=0):
    result = CliRunner().invoke(app, command(*arguments))
    assert result.exit_code == code, result.output
    return result


def test_the_categories_are_those_of_the_original_study():
    sizes = {name: len(wnids) for name, wnids in shape_categories().items()}
    assert sizes == {
        "airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3, "cat": 6,
        "chair": 4, "clock": 3, "dog": 109, "elephant": 2, "keyboard": 2, "knife": 1, "oven": 1, "truck": 8,
    }  # fmt: skip
    wnids = [wnid for ids in shape_categories().values() for wnid in ids]
    assert len(set(wnids)) == 207 and set(wnids) < set(WNIDS) and shape_categories()["airplane"] == [WNIDS[404]]


@pytest.mark.parametrize(
    ("shape", "texture", "images", "expected"),
    [
        (162, 572, 1200, 22.07),  # ResNet-50
        (180, 509, 1200, 26.12),  # ResNet-101
        (196, 569, 1200, 25.62),  # ResNet-152
        (163, 597, 1200, 21.45),  # DenseNet-121
        (182, 537, 1200, 25.31),  # AlexNet
        (84, 828, 1200, 9.21),  # VGG-16
        (133, 597, 1200, 18.22),  # SqueezeNet 1.1
        (586, 141, 1200, 80.61),  # ResNet-50 trained on stylised images
        (9236, 398, 12000, 95.87),  # ten humans
    ],
)
def test_the_counts_of_the_original_study_give_its_shape_bias(shape, texture, images, expected):
    pairs = np.array(list(permutations(range(16), 2)) * (images // 240))
    np.random.default_rng(0).shuffle(pairs)
    neither = np.array([next(place for place in range(16) if place not in pair) for pair in pairs])
    answers = np.where(np.arange(images) < shape, pairs[:, 0], neither)
    answers[shape : shape + texture] = pairs[shape : shape + texture, 1]
    found = shape_bias(np.column_stack([pairs, answers]))
    assert (found["images"], found["shape"], found["texture"]) == (images, shape, texture)
    assert round(found["shape_bias"], 2) == expected
    assert found["standard_error"] == pytest.approx(
        (found["shape_bias"] * (100 - found["shape_bias"]) / (shape + texture)) ** 0.5
    )
    assert found["counted"] == pytest.approx(100 * (shape + texture) / images)
    assert [sum(entry[key] for entry in found["categories"]) for key in ("images", "shape", "texture")] == [
        images,
        shape,
        texture,
    ]


@pytest.fixture(scope="module")
def expected(model, folder):
    """The decisions, one image at a time: (shape, texture, answer)."""
    classifier = AutoModelForImageClassification.from_pretrained(model)
    processor = AutoImageProcessor.from_pretrained(model)
    columns = {name: [CLASSES.index(w) for w in shape_categories()[name] if w in CLASSES] for name in KNOWN}
    found = []
    for path in sorted(folder.rglob("*.png")):
        shape, texture = (part.rstrip("0123456789") for part in path.stem.split("-"))
        inputs = processor(Image.open(path).resize((32, 32), Image.BICUBIC), do_resize=False, return_tensors="pt")
        with torch.inference_mode():
            probabilities = classifier(**inputs).logits[0].softmax(0)
        answer = max(columns, key=lambda name, p=probabilities: p[columns[name]].mean())
        if shape != texture:
            found.append((shape, texture, answer))
    assert 0 < sum(shape == answer for shape, _, answer in found) < len(found) == 24
    return found


def check(content, expected):
    shape, texture = (sum(decision[i] == decision[2] for decision in expected) for i in (0, 1))
    assert (content["shape"], content["texture"], content["images"]) == (shape, texture, 24)
    values = {row["metric"]: float(row["value"]) for row in content["rows"]}
    assert values["subset shape bias"] == round(100 * shape / (shape + texture), 4)
    assert values["subset answered with shape or texture"] == round(100 * (shape + texture) / 24, 4)
    for entry in content["categories"]:
        own = [decision for decision in expected if decision[0] == entry["category"]]
        assert (entry["images"], entry["shape"]) == (8, sum(shape == answer for shape, _, answer in own))


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 2)])
def test_decisions_and_rows(batch_size, workers, model, folder, expected, tmp_path):
    path = tmp_path / "shape_bias.csv"
    options = "--subset", "--batch-size", batch_size, "--num-workers", workers, "--results", path
    check(json.loads(run("--model", model, "--data", folder, *options, "--json").stdout), expected)
    with path.open() as file:
        row, *_ = csv.DictReader(file)
    assert row["data"] == "stimuli, 24 images, 3 categories" and row["size"] == "32 x 32"
    assert row["options"] == "resized to 32 x 32, the protocol has 224 x 224"
    shown = run("--model", model, "--data", folder, "--subset").stdout
    assert "the images were resized to 32 x 32, the protocol has 224 x 224" in shown
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_killed_and_resumed_by_two_processes(model, folder, expected, tmp_path, monkeypatch):
    path, measure, measured = tmp_path / "shape_bias.csv", ShapeBiasEvaluation.measure, []

    def killed(self, batch):
        if len(measured) == 9:
            raise KeyboardInterrupt
        measured.extend(batch)
        return measure(self, batch)

    options = "--model", model, "--data", folder, "--subset", "--results", path, "--batch-size", 3
    monkeypatch.setattr(ShapeBiasEvaluation, "measure", killed)
    CliRunner().invoke(app, command(*options))
    assert len(measured) == 9 and not path.exists()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "hf_models.cli", *command(*options, "--resume", "--json")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout), expected)


def test_at_224_pixels_nothing_is_resized_or_cropped(tmp_path):
    """With the model's own mean and deviation, whatever the processor does to photos."""
    folder = make_model(tmp_path / "model", [wnid_names()[wnid] for wnid in CLASSES])
    statistics = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    size = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    ImageNetImageProcessor(**size, **statistics).save_pretrained(folder)
    make_stimuli(tmp_path / "stimuli")
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ShapeBiasEvaluation, "measure", lambda self, batch: [shown.append(i) or bytes(3) for i, _ in batch]
        )
        rows = json.loads(
            run("--model", folder, "--data", tmp_path / "stimuli", "--subset", "--num-workers", 0, "--json").stdout
        )["rows"]
    assert rows[0]["options"] == ""
    for pixels, path in zip(shown, sorted((tmp_path / "stimuli").rglob("*.png")), strict=True):
        stored = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
        assert torch.allclose(pixels, (stored / 255 - 0.5) / 0.25, atol=1e-6)


def test_only_all_stimuli_and_all_categories_have_the_name(tmp_path):
    root, everything = tmp_path / "stimuli", list(shape_categories())
    for shape, texture in permutations(everything, 2):
        (root / shape).mkdir(parents=True, exist_ok=True)
        for number in range(1, 6):
            (root / shape / f"{shape}{number}-{texture}1.png").touch()
    stimuli = find_stimuli(str(root), False, None)
    selection = select_stimuli(str(root), stimuli, "model", everything, False, None)
    assert (selection.title, selection.prefix) == ("cue-conflict stimuli, 1,200 images", "")
    few = select_stimuli(str(root), stimuli, "model", everything[:11], True, None)
    assert (few.title, few.prefix, few.count) == ("stimuli, 550 images, 11 categories", "subset ", 550)
    assert select_stimuli(str(root), stimuli, "model", everything, False, 7).prefix == "subset "
    (root / "oven" / "oven3-cat1.png").unlink()
    with pytest.raises(ValueError, match=r"1,199 stimuli \(4 of oven with the texture of cat\), 1,200 expected"):
        find_stimuli(str(root), False, None)


def test_a_model_of_imagenet_22k_answers_with_the_same_classes(tmp_path):
    wnids = list(wnid_names("imagenet-22k"))
    folder = make_model(tmp_path / "22k", list(wnid_names("imagenet-22k").values()))
    model = AutoModelForImageClassification.from_pretrained(folder)
    with torch.no_grad():  # the classes of no category have the highest scores, then the bears
        model.classifier.bias.fill_(1e4)
        model.classifier.bias[[wnids.index(wnid) for ids in shape_categories().values() for wnid in ids]] = 0.0
        model.classifier.bias[[wnids.index(wnid) for wnid in shape_categories()["bear"]]] = 1e3
    model.save_pretrained(folder)
    make_stimuli(tmp_path / "stimuli", ["airplane", "bear", "bicycle"])
    content = json.loads(run("--model", folder, "--data", tmp_path / "stimuli", "--subset", "--json").stdout)
    assert content["rows"][0]["data"] == "stimuli, 6 images, 16 categories"
    assert (content["shape"], content["texture"], content["counted"]) == (2, 2, pytest.approx(200 / 3))


def test_the_picture(model, folder, tmp_path):
    pytest.importorskip("matplotlib")
    run("--model", model, "--data", folder, "--subset", "--picture", tmp_path / "shape.svg")
    drawn = (tmp_path / "shape.svg").read_text()
    assert all(f"<!-- {text}" in drawn for text in (*KNOWN, "stimuli, 24 images, 3 categories"))
    draw = import_module("hf_models.evaluate.shape_picture").draw_shape_bias
    several = {
        "one": shape_bias(np.array([[1, 7, 1], [1, 7, 7]])),
        "two": shape_bias(np.array([[4, 9, 4], [5, 1, 8]])),
    }
    draw(several, "several", tmp_path / "several.svg")
    drawn = (tmp_path / "several.svg").read_text()
    assert all(f"<!-- {text}" in drawn for text in ("bear", "boat", "bottle", "one: 50.0", "two: 100.0"))
    (line,) = run("--data", folder, "--picture", tmp_path / "shape.txt", code=2).stderr.splitlines()
    assert "not a name of a picture" in line


def named(name):
    def build(root):
        make_stimuli(root)
        Image.new("RGB", (224, 224)).save(root / name)

    return build


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda root: None, [], "no stimuli such as cat/cat7-elephant1.png in this folder"),
        (make_stimuli, [], "6 stimuli (no airplane, bicycle, bird, "),
        (named("cat/photo.png"), ["--subset"], "cat/photo.png: not a stimulus. Their names are SHAPEi-TEXTUREj.png"),
        (named("cat/bear1-truck2.png"), ["--subset"], "cat/bear1-truck2.png: not a stimulus"),
        (named("cat/cat1-tree2.png"), ["--subset"], "cat/cat1-tree2.png: not a stimulus"),
        (lambda root: make_stimuli(root, size=(64, 48)), ["--subset"], "64 x 48 pixels, a stimulus has 224 x 224"),
        (lambda root: make_stimuli(root, ["dog", "bird"]), ["--subset"], "no stimulus whose shape and texture "),
        (make_stimuli, ["--limit", "3"], "has no classes of 13 of the 16 categories (airplane, bicycle, "),
    ],
)
def test_refusals_are_one_line_and_write_nothing(make, options, words, model, tmp_path):
    data = tmp_path / "stimuli"
    make(data)
    before = sorted(tmp_path.rglob("*"))
    result = run("--model", model, "--data", data, "--results", tmp_path / "bias.csv", *options, code=2)
    assert words in result.stderr.splitlines()[-1]
    assert len([line for line in result.stderr.splitlines() if line and "image/s" not in line]) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_category_that_is_missing_is_named(model, tmp_path):
    make_stimuli(tmp_path / "s", [name for name in shape_categories() if name != "bear"], per_pair=5, size=(1, 1))
    (line,) = run("--model", model, "--data", tmp_path / "s", code=2).stderr.splitlines()
    assert line.startswith(f"{tmp_path / 's'}: 1,050 stimuli (no bear), 1,200 expected, 5 of each shape with each ")


def test_a_model_of_other_classes_is_refused(folder, tmp_path):
    other = make_model(tmp_path / "other", ["coat", "dress"])
    (line,) = run("--model", other, "--data", folder, "--subset", code=2).stderr.splitlines()
    assert "2 classes that are not ImageNet's" in line
