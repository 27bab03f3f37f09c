"""`hf-models evaluate coco`: the numbers of a direct run of pycocotools, whatever the processes, and every refusal."""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessorPil,
)
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.errors import InputError
from hf_models.evaluate import coco_metrics
from hf_models.evaluate.coco_metrics import SUMMARY, precision
from hf_models.evaluate.data.coco import category_ids, open_coco
from hf_models.evaluate.data.coco_objects import _decompressed, check_objects
from hf_models.evaluate.run import run as evaluate
from hf_models.evaluate.settings import Settings

from ..harness import coco_tester as harness
from ..harness.coco_tester import NAMES, NUM_IMAGES, coco_evaluation, make_coco
from ..harness.detection_tester import make_detector

CODES = {"box": "bbox", "mask": "segm"}
LABELS = ["toothbrush", "unicorn", "dog", "cup", "car"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("data") / "coco")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Mask R-CNN with random weights."""
    return make_detector(tmp_path_factory.mktemp("model") / "detector", id2label=dict(enumerate(LABELS)))


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["evaluate", "coco", "--device", "cpu", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def found(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def direct(model, processor, data, category_of, kind, first=None):
    """The 12 numbers, by pycocotools alone, from files."""
    path = Path(data) / "annotations" / "instances_val2017.json"
    results = []
    for image in json.loads(path.read_text())["images"][:first]:
        photo = Image.open(Path(data) / "val2017" / image["file_name"]).convert("RGB")
        with torch.inference_mode():
            outputs = model(**processor(images=[photo], return_tensors="pt"))
        size = [(image["height"], image["width"])]
        (boxes,) = processor.post_process_object_detection(outputs, 0.0, size)
        maps = [None] * len(boxes["scores"])
        if kind == "mask":
            (segments,) = processor.post_process_instance_segmentation(
                outputs, 0.0, target_sizes=size, return_binary_maps=True
            )
            maps = segments["segmentation"]
        for score, label, box, pixels in zip(
            boxes["scores"], boxes["labels"], boxes["boxes"].tolist(), maps, strict=True
        ):
            if (category := category_of.get(int(label))) is None:
                continue
            result = {"image_id": image["id"], "category_id": category, "score": score}
            if kind == "mask":
                encoded = mask.encode(np.asfortranarray(pixels.numpy().astype(np.uint8)))
                result["segmentation"] = encoded | {"counts": encoded["counts"].decode()}
            else:
                result["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append(result)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(results), CODES[kind])
        evaluation.params.maxDets = [100, 300, 1000]
        if first:
            evaluation.params.imgIds = [image["id"] for image in truth.dataset["images"][:first]]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {f"{kind} {name}": 100 * value for name, value in zip(SUMMARY, evaluation.stats, strict=True) if value > -1}


@pytest.fixture(scope="module")
def expected(data):
    """Of the detector that is nearly right."""
    stub = coco_evaluation(data)
    about = stub.model, stub.loaded.processor, data, stub.categories
    return direct(*about, "box") | direct(*about, "mask")


@pytest.fixture(params=["hotcoco", "pycocotools"])
def library(request, monkeypatch):
    """With which of the two the numbers are computed."""
    if request.param == "hotcoco":
        pytest.importorskip("hotcoco")
    else:
        monkeypatch.setattr(coco_metrics, "hotcoco", None)
    return request.param


def test_equal_to_pycocotools(data, expected, library):
    rows, details = evaluate(coco_evaluation(data), Settings(1, device="cpu"))
    assert len(expected) == 24 and details["metrics"] == pytest.approx(expected, abs=1e-9)
    assert {row["metric"]: float(row["value"]) for row in rows} == pytest.approx(expected, abs=1e-4)
    # the rules of mmdetection: of the crowded image AP counts 100 detections, AP50 all
    assert expected["box AR@100"] < expected["box AR@300"]
    assert 30 < expected["mask AP"] < expected["box AP"] < 90 and rows[0]["n"] == str(NUM_IMAGES)


def test_classes(data, expected, library):
    _, details = evaluate(coco_evaluation(data), Settings(1, device="cpu"))
    content = json.loads((data / "annotations" / "instances_val2017.json").read_text())
    for entry in details["classes"]:
        category = next(number for number, name in NAMES.items() if name == entry["label"])
        objects = [a for a in content["annotations"] if a["category_id"] == category and not a["iscrowd"]]
        assert entry["objects"] == len(objects) > 0
    for name in ("box AP", "box AR@100", "mask AP", "mask AR@100"):
        assert np.mean([entry[name] for entry in details["classes"]]) == pytest.approx(expected[name])


@pytest.mark.parametrize(("batch_size", "num_workers"), [(3, 0), (7, 2)])
def test_batches(batch_size, num_workers, data, expected):
    """Images are told apart from their padding; this detector does not see it, so nothing changes."""
    evaluation = coco_evaluation(data, batch_size=batch_size)
    rows, details = evaluate(evaluation, Settings(batch_size, device="cpu", num_workers=num_workers))
    assert details["metrics"] == pytest.approx(expected, abs=1e-9)
    assert rows[0]["options"] == f"batches of {batch_size}"


def killed(data, path, images):
    """Evaluate until so many images are measured."""
    evaluation, measured = coco_evaluation(data), []
    measure = evaluation.measure

    def until(batch):
        if len(measured) == images:
            raise KeyboardInterrupt
        measured.extend(batch)
        return measure(batch)

    evaluation.measure = until
    with pytest.raises(KeyboardInterrupt):
        evaluate(evaluation, Settings(1, device="cpu", results=path))


@pytest.mark.parametrize("processes", [1, 2])
def test_resumed(processes, data, expected, tmp_path):
    path = tmp_path / "coco.csv"
    killed(data, path, 9)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes == 2 else []
    done = subprocess.run(
        [sys.executable, *launch, harness.__file__, str(path), str(data), "val2017"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx(expected, abs=1e-9)
    assert [file.name for file in tmp_path.iterdir()] == ["coco.csv"]


def test_a_real_detector(data, detector, tmp_path):
    """The whole command, killed, and resumed by two processes."""
    path, journal = tmp_path / "coco.csv", tmp_path / "coco.csv.progress-0.jsonl"
    options = ["evaluate", "coco", "--device", "cpu", "--model", detector, "--data", data, "--results", path]
    command = ["-m", "hf_models.cli", *map(str, options)]
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not path.exists()
    assert 3 <= journal.read_bytes().count(b"\n") - 1 < NUM_IMAGES
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    resumed = subprocess.run(
        [*launch, "--resume", "--json"], capture_output=True, text=True, env=environment, timeout=200
    )
    assert resumed.returncode == 0, resumed.stderr
    content = json.loads(resumed.stdout)
    model = AutoModelForObjectDetection.from_pretrained(detector, dtype=torch.float32).eval()
    categories = {LABELS.index(name): number for number, name in NAMES.items()}
    about = model, AutoImageProcessor.from_pretrained(detector), data, categories
    assert content["metrics"] == pytest.approx(direct(*about, "box") | direct(*about, "mask"), abs=1e-9)
    assert content["metrics"]["box AP"] > 0
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["value"] for row in rows] == [row["value"] for row in content["rows"]]
    assert {(row["n"], row["size"], row["kernel"]) for row in rows} == {(str(NUM_IMAGES), "64 to 96", "none")}


def test_what_is_printed(data, detector, tmp_path):
    out = tmp_path / "curve.png"
    lines = run("--model", detector, "--data", data, "--limit", 8, "--curve", out).stdout.splitlines()
    assert lines[0].split() == ["box", "AP", "box", "AR@100", "mask", "AP", "mask", "AR@100", "objects", "class"]
    assert len(lines) == 1 + len(NAMES) + 24
    assert lines[4].startswith("subset box AP: ") and lines[4].endswith("% (detector on instances_val2017, 8 images)")
    with Image.open(out) as picture:
        assert min(picture.size) > 300 and len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_the_first_images(data, detector):
    content = found("--model", detector, "--data", data, "--limit", 8, "--task", "boxes")
    model = AutoModelForObjectDetection.from_pretrained(detector, dtype=torch.float32).eval()
    categories = {LABELS.index(name): number for number, name in NAMES.items()}
    numbers = direct(model, AutoImageProcessor.from_pretrained(detector), data, categories, "box", first=8)
    assert content["metrics"] == pytest.approx(numbers, abs=1e-9)
    assert content["rows"][0]["metric"] == "subset box AP" and content["rows"][0]["n"] == "8"


def test_a_detector_of_transformers(data, tmp_path):
    """Boxes through its own processor."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = YolosConfig(**sizes, image_size=[64, 64], num_detection_tokens=20, id2label=dict(enumerate(LABELS)))
    YolosForObjectDetection(config).save_pretrained(tmp_path)
    YolosImageProcessorPil(size={"shortest_edge": 48, "longest_edge": 64}).save_pretrained(tmp_path)
    content = found("--model", tmp_path, "--data", data, "--limit", 8)
    assert {name.split()[0] for name in content["metrics"]} == {"box"} and content["rows"][0]["size"] == "48 to 64"
    (line,) = run("--model", tmp_path, "--data", data, "--task", "masks", code=2).stderr.splitlines()
    assert line == f"{tmp_path}: predicts boxes without masks. Pass --task boxes."


@pytest.mark.parametrize("layout", ["other file", "folder of the file's name", "no annotations folder"])
def test_other_layouts(layout, data, tmp_path):
    """Images beside a file that lies anywhere."""
    file = tmp_path / "mine.json"
    shutil.copy(data / "annotations" / "instances_val2017.json", file)
    if layout == "other file":
        selection = open_coco(str(data / "val2017"), "val2017", file)
    else:
        shutil.copytree(data / "val2017", tmp_path / "mine")
        selection = open_coco(str(tmp_path), "val2017", file) if "name" in layout else open_coco(str(tmp_path), "mine")
    assert selection.title == f"mine, {NUM_IMAGES} images" and len(list(selection.samples())) == NUM_IMAGES


def changed(data, tmp_path, change):
    """A copy of the data with other annotations."""
    copy = tmp_path / "coco"
    shutil.copytree(data, copy)
    path = copy / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return copy


def test_objects_without_iscrowd_are_none(data, tmp_path):
    def leave_out(content):
        for annotation in content["annotations"]:
            if not annotation["iscrowd"]:
                del annotation["iscrowd"]

    expected = open_coco(str(data), "val2017").content
    assert open_coco(str(changed(data, tmp_path, leave_out)), "val2017").content == expected


def test_nothing_is_detected(data, library):
    """COCO's own code stops on an empty list of results."""
    content = open_coco(str(data), "val2017").content
    for kind in CODES:
        measured = precision(content, [], kind)
        assert set(measured.summary.values()) == {0.0} and list(measured.classes) == list(NAMES)


def test_the_name_of_coco_is_kept_for_its_validation_images(data, monkeypatch):
    counts = {name: len(entries) for name, entries in open_coco(str(data), "val2017").content.items()}
    monkeypatch.setattr("hf_models.evaluate.data.coco.COUNTS", counts)
    assert open_coco(str(data), "val2017").title == "COCO val2017"
    limited = open_coco(str(data), "val2017", limit=5)
    assert (limited.title, limited.prefix) == ("COCO val2017, 5 images", "subset ")


def test_categories_are_found_by_name(data, tmp_path):
    def add_a_category(content):
        content["categories"].append({"id": 91, "name": "hair brush"})

    selection = open_coco(str(changed(data, tmp_path, add_a_category)), "val2017")
    # no object is a hair brush, and of cars there are no objects
    assert category_ids(selection, "m", LABELS) == {0: 90, 2: 18, 3: 7}
    with pytest.raises(
        InputError, match=r"1 of its 3 categories \(toothbrush\) are none of the 3 labels of m \(cat, d"
    ):
        category_ids(selection, "m", ["cat", "dog", "cup"])
    with pytest.raises(InputError, match="m: 2 outputs are called dog"):
        category_ids(selection, "m", ["dog", *LABELS])
    numbers = [f"LABEL_{index}" for index in range(91)]
    with pytest.raises(InputError, match="Its 91 outputs may be ids of COCO's categories: name them in id2label"):
        category_ids(selection, "m", numbers)


@pytest.mark.parametrize("where", ["mask_heads", "backbone"])
def test_nan_is_refused(where, data, detector, tmp_path):
    model = AutoModelForObjectDetection.from_pretrained(detector, dtype=torch.float32)
    next(getattr(model, where).parameters()).data.fill_(torch.nan)
    shutil.copytree(detector, tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    (line,) = run("--model", tmp_path / "model", "--data", data, code=2).stderr.splitlines()
    assert line == "the model returns NaN or infinity in float32. Pass another --dtype."


def test_photos_are_seen_upright(data, detector, tmp_path):
    """As the authors see them, and only if the annotations are for that."""
    expected = found("--model", detector, "--data", data, "--limit", 3)["metrics"]
    copy = changed(data, tmp_path, lambda content: None)
    path = copy / "val2017" / open_coco(str(data), "val2017").content["images"][0]["file_name"]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).rotate(90, expand=True).save(path, exif=exif)
    assert found("--model", detector, "--data", copy, "--limit", 3)["metrics"] == expected
    shutil.copy(data / "val2017" / path.name, path)
    Image.open(path).save(path, exif=exif)
    (line,) = run("--model", detector, "--data", copy, code=2).stderr.splitlines()
    assert line.startswith(f"{path}: its EXIF data turn it to ")


def test_runs_are_decompressed_as_by_coco():
    random = np.random.default_rng(0)
    for _ in range(100):
        pixels = random.random(random.integers(1, 40, 2)) > random.random()
        encoded = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
        runs = _decompressed(encoded["counts"].decode())
        assert (np.repeat(np.arange(len(runs)) % 2, runs) == pixels.T.flatten()).all()  # column by column


def test_boxes_may_be_rounded(data):
    content = json.loads((data / "annotations" / "instances_val2017.json").read_text())
    image = content["images"][0]
    content["annotations"][0]["bbox"] = [-0.4, -1, image["width"] + 1.2, image["height"] + 2]
    check_objects(content, Path("x.json"))
