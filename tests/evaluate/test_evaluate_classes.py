"""`hf-models evaluate classes`: metrics equal to an independent computation, splits, pictures and every refusal."""

import csv
import io
import json
import shutil

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.evaluate.data import tables
from hf_models.evaluate.data.splits import choose_split, split_of

from ..harness.classification_tester import PER_CLASS, jpeg, make_folder, make_model

NAMES = ["coat", "dress", "hat", "shirt", "shoe", "sock", "tie"]
PRESENT = NAMES[:5]  # of the other two there are no images


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "val", PRESENT)


@pytest.fixture(scope="module")
def answers(model, folder):
    """The class of each image and the model's scores, one image at a time."""
    processor = AutoImageProcessor.from_pretrained(model)
    classifier = AutoModelForImageClassification.from_pretrained(model)
    found = []
    for path in sorted(folder.rglob("*.JPEG")):
        with torch.inference_mode():
            logits = classifier(**processor(Image.open(path), return_tensors="pt")).logits[0]
        found.append((NAMES.index(path.parent.name), logits.argsort(descending=True).tolist()))
    return found


def table(folder, path, column=None, features=None):
    files = sorted(folder.rglob("*.JPEG"))
    labels = [(column or (lambda name: name))(file.parent.name) for file in files]
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    features = datasets.Features({"image": datasets.Image(), "label": features or datasets.Value("string")})
    datasets.Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(path)
    return path


def run(*arguments, code=0, command="classes"):
    result = CliRunner().invoke(app, ["evaluate", command, "--device", "cpu", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def found(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def metrics(content):
    return {row["metric"]: float(row["value"]) for row in content["rows"]}


@pytest.fixture(scope="module")
def expected(answers):
    confusion = np.zeros((7, 7), dtype=int)
    for label, best in answers:
        confusion[label, best[0]] += 1
    recalls = confusion.diagonal()[:5] / confusion[:5].sum(1)
    assert len(set(recalls)) > 1 and 0 < recalls.mean() < 1
    top5 = np.mean([label in best[:5] for label, best in answers])
    assert top5 < 1
    named = {
        "top-1": confusion.trace() / confusion.sum(),
        "balanced accuracy": recalls.mean(),
        "top-5": top5,
    }
    return confusion, {name: round(100 * value, 4) for name, value in named.items()}


@pytest.mark.parametrize("kind", ["folders", "names", "numbers with names in another order", "numbers"])
def test_the_same_from_every_format(kind, model, folder, expected, tmp_path):
    data = folder
    if kind == "names":
        data = table(folder, tmp_path / "a.parquet")
    elif kind == "numbers":
        data = table(folder, tmp_path / "a.parquet", NAMES.index, datasets.Value("int64"))
    elif kind != "folders":
        mirrored = NAMES[::-1]
        data = table(folder, tmp_path / "a.parquet", mirrored.index, datasets.ClassLabel(names=mirrored))
    assert metrics(found("--model", model, "--data", data, "--batch-size", 7)) == expected[1]


def test_class_by_class(model, folder, expected):
    content, (confusion, _) = found("--model", model, "--data", folder), expected
    for entry in content["classes"]:
        index = NAMES.index(entry["label"])
        assert (entry["images"], entry["answers"]) == (confusion[index].sum(), confusion[:, index].sum())
        assert entry["right"] == confusion[index, index]
        for name, whole in (("recall", entry["images"]), ("precision", entry["answers"])):
            assert entry[name] == (pytest.approx(100 * entry["right"] / whole) if whole else None)
    assert {entry["label"] for entry in content["classes"]} >= set(PRESENT)
    mistakes = [(NAMES.index(m["label"]), NAMES.index(m["answer"]), m["images"]) for m in content["mistakes"]]
    assert sum(count for *_, count in mistakes) == confusion.sum() - confusion.trace()
    assert all(confusion[label, answer] == count for label, answer, count in mistakes)
    assert [count for *_, count in mistakes] == sorted((count for *_, count in mistakes), reverse=True)


def test_what_is_printed_and_kept(model, folder, expected, tmp_path):
    results = tmp_path / "classes.csv"
    lines = run("--model", model, "--data", folder, "--results", results).stdout.splitlines()
    assert lines[0].split() == ["recall", "precision", "images", "class"]
    assert any(line.endswith(f"{PER_CLASS}  coat") for line in lines) and any(" taken for " in line for line in lines)
    assert f"top-1: {expected[1]['top-1']:.2f} % ({model.name} on val, 40 images of 5 classes)" in lines
    with results.open() as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert {name: float(row["value"]) for name, row in rows.items()} == expected[1]
    assert [file.name for file in tmp_path.iterdir()] == ["classes.csv"]
    limited = found("--model", model, "--data", folder, "--limit", 3)["rows"]
    assert {row["metric"] for row in limited} == {f"subset {name}" for name in expected[1]}
    assert limited[0]["data"] == "val, the first 3 images" and limited[0]["n"] == "3"


def test_few_classes_have_no_top_5(folder, tmp_path):
    small = make_model(tmp_path / "model", PRESENT)
    assert set(metrics(found("--model", small, "--data", folder))) == {"top-1", "balanced accuracy"}


def test_photos_are_seen_upright(model, tmp_path):
    """As `classify` and pipelines see them; ImageNet is measured as stored."""
    photo = Image.open(io.BytesIO(jpeg(0))).resize((60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    predicted = []
    for name, image, options in (("upright", photo, {}), ("phone", photo.rotate(90, expand=True), {"exif": exif})):
        (tmp_path / name / "coat").mkdir(parents=True)
        image.save(tmp_path / name / "coat" / "a.png", **options)
        predicted.append(found("--model", model, "--data", tmp_path / name)["classes"])
    assert predicted[0] == predicted[1]


def test_picture(model, folder, tmp_path):
    out = tmp_path / "confusion.png"
    run("--model", model, "--data", folder, "--picture", out)
    with Image.open(out) as picture:
        assert min(picture.size) > 200 and len(picture.convert("L").getcolors()) > 20
    for name, words in (("a.txt", "not a name of a picture"), ("none/a.png", "there is no folder")):
        (line,) = run("--model", model, "--data", folder, "--picture", tmp_path / name, code=2).stderr.splitlines()
        assert words in line


def one_class_more(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "val")
    shutil.copytree(folder / "coat", tmp_path / "val" / "scarf")
    return tmp_path / "val"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (one_class_more, "val: its class scarf is none of the 7 labels of "),
        (one_class_more, "(coat, dress, hat, shirt, shoe, ...). Rename the class, or the labels in id2label"),
        (lambda folder, path: table(folder, path / "a.parquet", lambda name: 7, datasets.Value("int64")), "class 7"),
        (
            lambda folder, path: table(
                folder, path / "a.parquet", lambda name: [1, 2], datasets.List(datasets.Value("int64"))
            ),
            "its images have lists of labels",
        ),
    ],
)
def test_refusals_are_one_line(make, words, model, folder, tmp_path):
    data = make(folder, tmp_path)
    (line,) = run("--model", model, "--data", data, code=2).stderr.splitlines()
    assert words in line


def test_models_that_do_not_classify(folder, tmp_path):
    one = make_model(tmp_path / "one", ["coat"])
    (line,) = run("--model", one, "--data", folder, code=2).stderr.splitlines()
    assert line == f"{one}: answers with a number, not with classes. Choose a classifier of two or more classes."
    doubled = make_model(tmp_path / "doubled", ["coat", *NAMES])
    (line,) = run("--model", doubled, "--data", folder, code=2).stderr.splitlines()
    assert line == f"{doubled}: outputs 0 and 1 are both called coat. Rename one."


def test_evaluate_imagenet_hands_over(model, folder, expected, tmp_path):
    """Classes that are not ImageNet's, and that the model knows; all else is refused as before."""
    result = run("--model", model, "--data", folder, command="imagenet")
    assert result.stderr.splitlines()[-1] == (
        "the classes are not ImageNet-1K's: measured as by `hf-models evaluate classes`"
    )
    assert f"top-1: {expected[1]['top-1']:.2f} %" in result.stdout
    data = one_class_more(folder, tmp_path)
    (line,) = run("--model", model, "--data", data, command="imagenet", code=2).stderr.splitlines()
    assert "classes such as coat are not ImageNet-1K's" in line and "hf-models evaluate classes" in line


# --- splits


@pytest.mark.parametrize("held_out", ["validation", "val", "test"])
def test_the_held_out_split_is_taken(held_out, model, folder, expected, tmp_path):
    """From files and from folders that lie beside the training images."""
    training = make_folder(tmp_path / "other", PRESENT[:1], per_class=3)
    files, folders = tmp_path / "files", tmp_path / "folders"
    files.mkdir()
    table(training, files / "train-00000-of-00001.parquet")
    table(folder, files / f"mine_{held_out}-00000.parquet")
    shutil.copytree(training, folders / "train")
    shutil.copytree(folder, folders / held_out)
    for data, name in ((files, f"files {held_out}"), (folders, held_out)):
        content = found("--model", model, "--data", data)
        assert metrics(content) == expected[1]
        assert content["rows"][0]["data"] == f"{name}, 40 images of 5 classes"
        assert found("--model", model, "--data", data, "--split", "train")["rows"][0]["n"] == "3"


def test_training_images_are_measured_on_only_if_asked_for(model, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "train")
    (line,) = run("--model", model, "--data", tmp_path, code=2).stderr.splitlines()
    assert line == f"{tmp_path}: holds only the split train. Pass --split train to evaluate on it."
    shutil.rmtree(tmp_path / "train")
    table(folder, tmp_path / "train-0.parquet")
    table(folder, tmp_path / "more.parquet")
    (line,) = run("--model", model, "--data", tmp_path, code=2).stderr.splitlines()
    assert line.startswith(f"{tmp_path}: holds only the split train and files of no split. Pass --split train")
    assert found("--model", model, "--data", tmp_path / "train-0.parquet")["rows"][0]["n"] == "40"


@pytest.mark.parametrize("name", ["train-0.parquet", "0000.parquet"])
def test_tables_in_the_folder_of_a_split(name, model, folder, tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        table(folder, tmp_path / split / name.replace("train", split))
    for options in ([], ["--split", "train"]):
        assert found("--model", model, "--data", tmp_path, *options)["rows"][0]["n"] == "40"


def test_names_of_splits():
    names = ("train-00000-of-00014", "imagenet1k-validation-00", "val", "Test_1", "trainer", "photos")
    assert [split_of(name) for name in names] == ["train", "validation", "val", "test", None, None]
    assert choose_split("data", ["train", "test", "val"]) == "val" and choose_split("data", {None}) is None


def test_splits_on_the_hub(monkeypatch, tmp_path, folder):
    """The client is asked which there are; the rows are those of a local file."""
    path = table(folder, tmp_path / "a.parquet")
    asked = []

    def load(name, split=None, **kwargs):
        asked.append((name, split, kwargs["revision"]))
        return datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: type("Info", (), {"sha": "c0"}))
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *args, **kwargs: ["train", "test"])
    monkeypatch.setattr(tables, "_stream", load)
    data = tables.open_tables("org/data", None, "main", None, None, ("label",))
    assert data.split == "test" and data.fingerprint == "commit c0, test" and asked == [("org/data", "test", "c0")]
