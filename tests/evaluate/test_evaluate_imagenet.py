"""`hf-models evaluate imagenet`: exact counts over small data sets with a small model, and every refusal."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from unittest.mock import patch

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.modeling_outputs import ImageClassifierOutput
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.evaluate import imagenet
from hf_models.evaluate.checkpoint import load
from hf_models.evaluate.data import imagenet as imagenet_data
from hf_models.evaluate.data.images import ImageData
from hf_models.zoo import wnid_names

from ..harness.bad_data import KNOWN
from ..harness.classification_tester import CLASSES, PER_CLASS, WNIDS, jpeg, make_folder, make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), [wnid_names()[wnid] for wnid in CLASSES])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "val")


@pytest.fixture(scope="module")
def parquet(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "validation.parquet"
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in sorted(folder.rglob("*.JPEG"))]
    labels = [index // PER_CLASS for index in range(len(images))]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    datasets.Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def tar(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "val-0000.tar"
    with tarfile.open(path, "w") as archive:
        for index, file in enumerate(sorted(folder.rglob("*.JPEG"))):
            for suffix, content in (("jpg", file.read_bytes()), ("cls", str(index // PER_CLASS).encode())):
                member = tarfile.TarInfo(f"{file.stem}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["evaluate", "imagenet", "--device", "cpu", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def metrics(result):
    return {row["metric"]: float(row["value"]) for row in json.loads(result.stdout)}


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def answers(model, folder):
    """The class of each image, and the model's answers, best first, one image at a time."""
    processor = AutoImageProcessor.from_pretrained(model)
    classifier = AutoModelForImageClassification.from_pretrained(model)
    found = []
    for path in sorted(folder.rglob("*.JPEG")):
        with torch.inference_mode():
            logits = classifier(**processor(Image.open(path), return_tensors="pt")).logits[0]
        found.append((CLASSES.index(path.parent.name), logits.argsort(descending=True).tolist()))
    assert len({best[0] for _, best in found}) > 2
    return found


@pytest.fixture(scope="module")
def expected(answers):
    top1 = np.mean([best[0] == label for label, best in answers])
    top5 = np.mean([label in best[:5] for label, best in answers])
    assert 0 < top1 < top5 < 1
    return {"subset top-1": round(100 * top1, 4), "subset top-5": round(100 * top5, 4)}


@pytest.mark.parametrize("kind", ["folder", "parquet", "tar"])
@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 2), (64, 3)])
def test_the_same_from_every_format_and_batch_size(kind, batch_size, workers, model, expected, request):
    data = request.getfixturevalue(kind)
    options = "--subset", "--json", "--batch-size", batch_size, "--num-workers", workers
    assert metrics(run("--model", model, "--data", data, *options)) == expected


def test_a_row_says_what_was_measured(model, parquet, expected, tmp_path):
    path = tmp_path / "imagenet.csv"
    result = run("--model", model, "--data", parquet, "--subset", "--results", path)
    assert "subset top-1: " in result.stdout
    top1, top5 = read_csv(path)
    assert float(top1["value"]) == expected["subset top-1"] and float(top5["value"]) == expected["subset top-5"]
    assert top1["data"] == "validation.parquet, 48 images of 6 classes"
    assert (top1["n"], top1["size"], top1["processor"]) == ("48", "32 x 32", "ImageNetImageProcessor (pil)")
    assert top1["kernel"] == "none" and top1["revision"].startswith("sha256 ")
    assert len(top1["seconds"].partition(".")[2]) == 3, "so that a short evaluation is not 0.0, which is refused"
    run("--model", model, "--data", parquet, "--subset", "--results", path, "--dtype", "bfloat16")
    run("--model", model, "--data", parquet, "--subset", "--results", path)
    assert [row["dtype"] for row in read_csv(path)] == ["float32", "float32", "bfloat16", "bfloat16"]
    assert [file.name for file in tmp_path.iterdir()] == ["imagenet.csv"]


def command(*arguments):
    return [sys.executable, "-m", "hf_models.cli", "evaluate", "imagenet", "--device", "cpu", *map(str, arguments)]


def test_killed_and_resumed(model, tmp_path, monkeypatch):
    data = make_folder(tmp_path / "val", per_class=60)
    expected = metrics(run("--model", model, "--data", data, "--subset", "--json"))
    path = tmp_path / "imagenet.csv"
    journal = tmp_path / "imagenet.csv.progress-0.jsonl"
    options = "--model", model, "--data", data, "--subset", "--results", path
    process = subprocess.Popen(command(*options, "--batch-size", 1), stderr=subprocess.DEVNULL)
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 20):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not path.exists()
    done = journal.read_bytes().count(b"\n") - 1
    assert 20 <= done < 360
    with journal.open("ab") as file:
        file.write(b'["01234567",{"seconds":0.1,"records":[[35')  # a line that the kill cut off

    (line,) = run(*options, code=2).stderr.splitlines()
    assert line.startswith(f"{journal}: an evaluation was interrupted. Pass --resume")
    (line,) = run(*options, "--resume", "--dtype", "bfloat16", code=2).stderr.splitlines()
    assert line.startswith(f"{journal}: belongs to another evaluation (") and "dtype differs" in line

    measured = []
    measure = imagenet.ImageNetEvaluation.measure
    monkeypatch.setattr(
        imagenet.ImageNetEvaluation, "measure", lambda self, batch: measured.append(len(batch)) or measure(self, batch)
    )
    assert metrics(run(*options, "--resume", "--json", "--batch-size", 64)) == expected
    assert sum(measured) == 360 - done, "nothing is computed twice"
    assert {row["n"] for row in read_csv(path)} == {"360"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["imagenet.csv", "val"]


def test_two_processes(model, parquet, expected, tmp_path):
    path = tmp_path / "imagenet.csv"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = "--model", model, "--data", parquet, "--subset", "--results", path, "--batch-size", 5, "--json"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *command(*options)[1:]], capture_output=True, text=True, env=environment, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert {row["metric"]: float(row["value"]) for row in json.loads(done.stdout)} == expected
    assert {row["n"] for row in read_csv(path)} == {"48"}
    assert [file.name for file in tmp_path.iterdir()] == ["imagenet.csv"]


def test_real_labels(model, folder, answers, expected, tmp_path):
    """Images without labels do not count; of the others every second answer is among the labels."""
    labels = [[[], [best[0], 999], [best[1], best[2]]][index % 3] for index, (_, best) in enumerate(answers)]
    path = tmp_path / "real.json"
    path.write_text(json.dumps(labels))
    found = metrics(run("--model", model, "--data", folder, "--subset", "--json", "--real", path))
    assert found == expected | {"subset ReaL top-1": 50.0}


def test_22k_model_answers_with_classes_of_1k_only(folder, tmp_path):
    names = list(wnid_names("imagenet-22k").values())
    big = make_model(tmp_path / "22k", names)
    model = AutoModelForImageClassification.from_pretrained(big)
    positions = [list(wnid_names("imagenet-22k")).index(wnid) for wnid in CLASSES]
    with torch.no_grad():  # classes of 22k alone have the highest scores, then the first six of 1k
        model.classifier.bias.fill_(1e4)
        known = [i for i, wnid in enumerate(wnid_names("imagenet-22k")) if wnid in wnid_names()]
        assert len(known) == 999
        model.classifier.bias[known] = 0.0
        model.classifier.bias[positions] = 1e3
    model.save_pretrained(big)
    found = metrics(run("--model", big, "--data", folder, "--subset", "--json"))
    assert found["subset top-5"] > 50


def test_the_first_of_equal_logits_counts(tmp_path):
    """As for argmax, which pipelines and `classify` use; five of many equal logits contain it."""
    model = make_model(tmp_path / "model", [wnid_names()[wnid] for wnid in WNIDS[:202]])
    selection = imagenet_data.check_labels(data_of(dict.fromkeys(WNIDS[:202], 1)), True, None)
    loaded = load(str(model), AutoModelForImageClassification)
    evaluation = imagenet.ImageNetEvaluation(loaded, selection, None)
    logits = torch.randint(0, 3, (500, 202), generator=torch.Generator().manual_seed(0)).bfloat16()
    best = [WNIDS[index] for index in logits.argmax(dim=1).tolist()]
    images = torch.zeros(500, 3, 32, 32)
    with patch.object(type(loaded.model), "forward", lambda self, pixel_values: ImageClassifierOutput(logits=logits)):
        assert set(evaluation.measure([(*pair, None) for pair in zip(images, best, strict=True)])) == {bytes([1, 1])}


def test_the_embedded_checkpoint_is_the_default(tmp_path):
    data = make_folder(tmp_path / "val", KNOWN, per_class=2)
    rows = json.loads(run("--data", data, "--subset", "--json").stdout)
    named = json.loads(run("--model", "default", "--data", data, "--subset", "--json").stdout)
    assert [row | {"seconds": ""} for row in rows] == [row | {"seconds": ""} for row in named]
    assert {row["model"] for row in rows} == {"embedded default"}


def data_of(counts, names=None, count=None):
    targets = [label for label, n in counts.items() for _ in range(n)]
    return ImageData("val", "f", count, lambda: iter(()), lambda: iter(targets), names)


def test_only_the_validation_set_is_called_imagenet():
    full = dict.fromkeys(WNIDS, 50)
    assert imagenet_data.check_labels(data_of(full), False, None).title == "ImageNet-1K validation"
    by_number = imagenet_data.check_labels(data_of({i: 50 for i in range(1000)}), False, None)
    assert by_number.title == "ImageNet-1K validation" and by_number.wnid_of[999] == WNIDS[999]
    shuffled = WNIDS[::-1]
    named = imagenet_data.check_labels(data_of({i: 50 for i in range(1000)}, names=shuffled), False, None)
    assert named.wnid_of[0] == WNIDS[-1]
    names = list(wnid_names().values())
    crane = names.index("crane")
    doubled = [name.split(" (n")[0] for name in names]
    labels = imagenet_data.check_labels(data_of({i: 50 for i in range(1000)}, names=doubled), False, None)
    assert labels.wnid_of[517] == WNIDS[517] and labels.wnid_of[crane] == WNIDS[134]
    v2 = imagenet_data.check_labels(data_of({str(i): 10 for i in range(1000)}), False, None)
    assert v2.title == "ImageNet-V2, 10,000 images" and v2.wnid_of["10"] == WNIDS[10] and v2.prefix == ""
    for data in (full | {WNIDS[3]: 49}, {wnid: 50 for wnid in WNIDS[1:]}, full | {WNIDS[0]: 49, WNIDS[1]: 51}):
        with pytest.raises(imagenet_data.InputError, match="1000 and 50,000 expected"):
            imagenet_data.check_labels(data_of(data), False, None)
        labels = imagenet_data.check_labels(data_of(data), True, None)
        assert "ImageNet" not in labels.title and labels.prefix == "subset "
    assert imagenet_data.check_labels(data_of(full), False, 100).title == "val, 100 images of 1,000 classes"


def unknown_to_the_model(folder):
    make_folder(folder, WNIDS[5:8])


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda folder: None, [], "no such file or folder"),
        (unknown_to_the_model, ["--subset"], "the model knows 6 classes of ImageNet-1K and not n01"),
        (make_folder, ["--split", "test", "--subset"], "no folder or file of the split test"),
        (make_folder, ["--subset", "--label-column", "wnid"], "no column wnid"),
        (make_folder, ["--subset", "--dtype", "int8"], "int8: no such dtype"),
        (make_folder, ["--subset", "--resume"], "--results"),
        (make_folder, ["--subset", "--model", "./missing"], "./missing: cannot be loaded"),
        (make_folder, ["--subset", "--real", "missing.json"], "missing.json: not the ReaL labels"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(make, options, words, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "val"
    make(data)
    before = sorted(tmp_path.rglob("*"))
    results = [] if "--resume" in options else ["--results", tmp_path / "imagenet.csv"]
    result = run("--model", model, "--data", data, *results, *options, code=2)
    (line,) = result.stderr.splitlines()
    assert words in line
    assert sorted(tmp_path.rglob("*")) == before


def test_refusals_of_tables(model, parquet, tmp_path):
    for options, words in (
        (["--label-column", "wnid"], f"{parquet}: no column wnid. There are: image, label."),
        (["--image-column", "jpg"], f"{parquet}: no column jpg. There are: image, label."),
    ):
        (line,) = run("--model", model, "--data", parquet, "--subset", *options, code=2).stderr.splitlines()
        assert line == words
    table = datasets.load_dataset("parquet", data_files=str(parquet), split="train", cache_dir=str(tmp_path))
    table.select([]).to_parquet(tmp_path / "empty.parquet")
    (line,) = run("--model", model, "--data", tmp_path / "empty.parquet", "--subset", code=2).stderr.splitlines()
    assert line == "empty.parquet: no images. Nothing evaluated."


def test_the_hub_is_asked_for_nothing_without_a_revision(model):
    (line,) = run("--model", model, "--data", "timm/imagenet-1k-wds", code=2).stderr.splitlines()
    assert line == "timm/imagenet-1k-wds: is on the Hub. Pass the --revision to stream, such as a commit."


def test_labels_in_a_wrong_order_are_suspected(tmp_path):
    """One image for all classes: one of 1,000 answers is right, as by chance."""
    model, image = make_model(tmp_path / "model", list(wnid_names().values())), jpeg(0)
    for wnid in WNIDS:
        (tmp_path / "val" / wnid).mkdir(parents=True)
        (tmp_path / "val" / wnid / "a.JPEG").write_bytes(image)
    result = run("--model", model, "--data", tmp_path / "val", "--subset", "--json")
    assert metrics(result)["subset top-1"] == 0.1
    assert "warning: top-1 is at chance level: is the order of the labels right?" in result.stderr.splitlines()


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried")])
def test_out_of_memory_is_answered_with_advice(model, folder, tmp_path, monkeypatch, error):
    def fail(self, batch):
        raise error

    monkeypatch.setattr(imagenet.ImageNetEvaluation, "measure", fail)
    options = "--model", model, "--data", folder, "--subset", "--results", tmp_path / "imagenet.csv"
    result = run(*options, "--batch-size", 64, code=2)
    assert result.stderr.splitlines()[-1] == (
        "out of memory at batch size 64. Pass --batch-size 32, and --resume to go on."
    )


def test_other_errors_are_not_hidden(model, folder, monkeypatch):
    def fail(self, batch):
        raise RuntimeError("a bug")

    monkeypatch.setattr(imagenet.ImageNetEvaluation, "measure", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        imagenet.evaluate_imagenet(str(model), str(folder), subset=True)


def test_nan_is_not_counted(folder, tmp_path):
    broken = make_model(tmp_path / "model", CLASSES)
    model = AutoModelForImageClassification.from_pretrained(broken)
    with torch.no_grad():
        model.classifier.bias.fill_(torch.nan)
    model.save_pretrained(broken)
    result = run("--model", broken, "--data", folder, "--subset", code=2)
    assert result.stderr.splitlines()[-1] == ("the model returns NaN or infinity in float32. Pass another --dtype.")
