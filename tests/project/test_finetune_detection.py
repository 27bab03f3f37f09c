"""Fine-tuning of detectors, on tiny folders of generated photos with objects."""

import importlib
import json
import re
import shutil
import signal
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hf_models import default_checkpoint
from hf_models.cli import app
from hf_models.coco_labels import coco_pixels
from hf_models.detection import load_detector
from hf_models.errors import InputError
from hf_models.evaluate.coco import evaluate_coco
from hf_models.evaluate.coco_metrics import precision
from hf_models.evaluate.settings import Settings

from ..harness.detection_scenes import scenes
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
CLASSES = {0: "ellipse", 1: "rectangle"}
PARTS = {"train": (8, 0), "val": (3, 1)}  # photos and seed


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module("finetune_detection")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_classifier(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Photos of two sizes in COCO's layout, with masks; every second one is cut at its right."""
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    for part, (count, seed) in PARTS.items():
        (root / part).mkdir()
        content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 7 + i, "name": n} for i, n in CLASSES.items()],
        }
        for number, (pixels, found) in enumerate(scenes(count, seed)):
            width = 64 if number % 2 else 50
            Image.fromarray(pixels[:, :width]).save(root / part / f"{number}.png")
            content["images"].append({"id": number, "file_name": f"{number}.png", "width": width, "height": 64})
            for one in found["annotations"]:
                left, top, right, bottom = (
                    one["bbox"][0],
                    one["bbox"][1],
                    sum(one["bbox"][::2]),
                    sum(one["bbox"][1::2]),
                )
                if left >= width - 2:
                    continue
                mask = coco_pixels(one["segmentation"], (64, 64))[:, :width]
                runs = np.flatnonzero(np.diff(np.concatenate(([0], mask.T.ravel(), [0]))))
                runs = np.diff(np.concatenate(([0], runs, [mask.size]))).tolist()
                content["annotations"].append(
                    {
                        **{"id": len(content["annotations"]) + 1, "image_id": number, "iscrowd": 0},
                        **{"category_id": 7 + one["category_id"], "area": int(mask.sum())},
                        "bbox": [left, top, min(right, width) - left, bottom - top],
                        "segmentation": {"size": [64, width], "counts": runs},
                    }
                )
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def voc(coco, tmp_path_factory):
    """The same in Pascal VOC's layout, without masks."""
    root = tmp_path_factory.mktemp("voc")
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for part in PARTS:
        content = json.loads((coco / "annotations" / f"instances_{part}.json").read_text())
        for image in content["images"]:
            name = f"{part}{image['id']}"
            shutil.copy(coco / part / image["file_name"], root / "JPEGImages" / f"{name}.png")
            objects = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            write_xml(root / "Annotations" / f"{name}.xml", image, objects)
        names = [f"{part}{image['id']}\n" for image in content["images"]]
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(names))
    return root


def write_xml(file, image, objects):
    parts = [f"<size><width>{image['width']}</width><height>{image['height']}</height><depth>3</depth></size>"]
    for one in objects:
        left, top, width, height = one["bbox"]
        edges = {"xmin": left + 1, "ymin": top + 1, "xmax": left + width, "ymax": top + height}
        box = "".join(f"<{name}>{value}</{name}>" for name, value in edges.items())
        parts.append(f"<object><name>{CLASSES[one['category_id'] - 7]}</name><bndbox>{box}</bndbox></object>")
    file.write_text(f"<annotation>{''.join(parts)}</annotation>")


@pytest.fixture
def options(tiny):
    with one_thread():
        yield {
            **{"model": tiny, "width": 16, "image_size": 64, "num_train_epochs": 3, "ema": 0.9},
            **{"per_device_train_batch_size": 4, "learning_rate": 5e-3},
        }


def test_learns_from_the_embedded_backbone(example, coco, options, tmp_path):
    options |= {"model": str(default_checkpoint()), "head": "faster-rcnn", "learning_rate": 0.003, "ema": 0.5}
    options |= {"bf16": True, "gradient_checkpointing": True, "freeze_stages": 1, "layer_decay": 0.7, "width": 32}
    options |= {"num_train_epochs": 3, "repeat": 5}
    output = tmp_path / "model"
    measured = example.finetune(str(coco), output, **options)
    assert measured["box AP50"] > 20 and {"box AP ellipse", "box AP rectangle"} < measured.keys()
    names = {path.name for path in Path(f"{output}-run").iterdir()}
    assert {"curves.png", "prediction-1.jpg", "prediction-2.jpg", "prediction-3.jpg"} <= names
    rows, details = evaluate_coco(str(output), str(coco), split="val", task="boxes", settings=Settings(batch_size=1))
    assert rows and details["metrics"]["box AP"] == pytest.approx(measured["box AP"], abs=1e-9)
    result = CliRunner().invoke(app, ["detect", str(coco / "val" / "0.png"), "--model", str(output), "--json"])
    assert result.exit_code == 0
    trained = load_detector(output)[1].backbone.state_dict()
    before = example.build(options["model"], ["a"], False, "faster-rcnn", 8, None)[0].backbone.state_dict()
    same = {name for name, value in trained.items() if torch.equal(value, before[name])}
    assert same == {name for name in trained if "embeddings" in name or "stages.0" in name}


def test_a_killed_run_goes_on_to_the_same_weights(example, coco, options, tmp_path):
    options |= {"head": "mask-rcnn", "num_train_epochs": 2}  # draws the regions that it learns from
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    measured = example.finetune(str(coco), whole, **options)
    assert {"box AP", "mask AP"} <= measured.keys()
    child = start("finetune_detection", tmp_path, {"data": str(coco), "output": str(broken), **options}, kill_at=3)
    assert child.wait() == -signal.SIGKILL and not broken.exists()
    assert example.finetune(str(coco), broken, resume=True, **options) == to_rounding(measured)
    with pytest.raises(InputError, match="broken-run: begun with another model"):
        example.finetune(str(coco), broken, resume=True, **options | {"head": "fcos"})
    for of_broken, of_whole in zip(*(history(name, "eval_box AP") for name in (broken, whole)), strict=True):
        assert of_broken == to_rounding(of_whole)
    assert_same_weights(*(load_detector(folder)[1] for folder in (whole, broken)))


def test_two_processes_are_one_with_twice_the_batch(example, coco, options, tmp_path):
    """FCOS draws nothing, so that several processes do what one does."""
    options["num_train_epochs"] = 2
    example.finetune(str(coco), tmp_path / "one", **options)
    options |= {"data": str(coco), "output": str(tmp_path / "two"), "per_device_train_batch_size": 2}
    assert run_two("finetune_detection", tmp_path, options) == [0, 0]
    one, two = (history(tmp_path / name, "eval_box AP") for name in ("one", "two"))
    for of_one, of_two in zip(one, two, strict=True):
        assert of_one.keys() == of_two.keys()
        assert list(of_one.values()) == pytest.approx(list(of_two.values()), rel=1e-3)


def test_both_layouts_are_the_same_photos(example, coco, voc):
    data = sys.modules[example.BoxedPhotos.__module__]
    examples = []
    for root in (coco, voc):
        trained, validated = data.open_split(root, "train"), data.open_split(root, "validation")
        assert len(data.class_names(trained, validated)) == 2 and data.has_masks(trained) == (root == coco)
        processor = example.build(str(default_checkpoint()), ["a"], False, "fcos", 8, 64)[1]
        photos = example.BoxedPhotos(trained, ["ellipse", "rectangle"], processor, 48)
        examples += [photos[index] for index in range(len(photos))]
    for one, two in zip(examples[: len(examples) // 2], examples[len(examples) // 2 :], strict=True):
        assert torch.equal(one["pixel_values"], two["pixel_values"])
        assert all(torch.equal(one["labels"][name], two["labels"][name]) for name in ("class_labels", "boxes"))


def test_boxes_and_masks_follow_their_objects(example, tmp_path):
    """An object is bright: the box and the mask of a crop are where it is bright."""
    data = sys.modules[example.BoxedPhotos.__module__]
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[20:44, 30:70] = 255
    random, mask = np.random.default_rng(0), Image.fromarray(pixels[..., 0] // 255)
    seen = []
    for _ in range(40):
        window = data.random_window((90, 60), (48, 96), 40, (0.5, 2.0), random, upside_down=True)
        boxes, kept = data.visible_boxes(window, np.array([[30, 20, 40, 24], [0, 0, 5, 5]]))
        shown = np.array(window.cut(mask, Image.Resampling.NEAREST, 0))
        seen.append(kept[0])
        if kept[0]:
            centre, sides = boxes[0, :2] * 40, boxes[0, 2:] * 40
            rows, columns = shown.nonzero()
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.concatenate((centre - sides / 2, centre + sides / 2)) - edges).max() <= 1
        assert kept[0] == (shown.sum() > 0) or shown.mean() < 0.15, "an object that is hardly seen is none"
    assert np.mean(seen) > 0 and len(boxes) == kept.sum()


@pytest.mark.parametrize("head", ["cascade", "dino"])
def test_every_head_trains_and_a_detector_gets_new_classes(example, coco, voc, options, tmp_path, head):
    options |= {"head": head, "num_train_epochs": 1, "image_size": 32}
    example.finetune(str(coco), tmp_path / "two", **options)
    for file in (root := shutil.copytree(voc, tmp_path / "voc")).glob("Annotations/*.xml"):
        file.write_text(file.read_text().replace("ellipse", "disc").replace("rectangle", "disc"))
    again = options | {"model": str(tmp_path / "two"), "learning_rate": 1e-9, "image_size": None}
    example.finetune(str(root), tmp_path / "one", **again)
    one, two = (load_detector(tmp_path / name)[1] for name in ("one", "two"))
    assert one.config.id2label == {0: "disc"} and not getattr(one.config, "with_masks", False)
    assert getattr(two.config, "with_masks", False) == (head == "cascade")
    before, after = two.state_dict(), one.state_dict()
    kept = [name for name, value in after.items() if value.shape == before[name].shape and "num_batches" not in name]
    assert len(kept) > 0.8 * len(after)
    trained = {name for name, _ in one.named_parameters()}
    assert all(torch.allclose(after[name], before[name], atol=1e-4) for name in kept if name in trained)


@pytest.fixture
def refused(example, options, tmp_path):
    """Checks what is said of a folder, in one line."""

    def check(root, message, **others):
        with pytest.raises(InputError, match=message) as raised:
            example.finetune(str(root), tmp_path / "model", **options | others)
        assert str(raised.value).isprintable() and not (tmp_path / "model-run").exists()

    return check


def test_bad_coco_is_refused(refused, coco, tmp_path):
    def changed(part, change):
        root = shutil.copytree(coco, tmp_path / str(len(list(tmp_path.iterdir()))))
        file = root / "annotations" / f"instances_{part}.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))
        return root

    flat = changed("train", lambda content: content["annotations"][1].update(bbox=[3, 4, 0, 5]))
    refused(
        flat, r"instances_train.json: annotation 2: its box \[3, 4, 0, 5\] has no area. Correct or remove it, or pass"
    )
    other = changed("train", lambda content: content["annotations"][0].update(category_id=5))
    refused(other, "annotation 1: the file has no category 5. Correct category_id")
    new = changed(
        "val", lambda c: (c["categories"].append({"id": 3, "name": "x"}), c["annotations"][0].update(category_id=3))
    )
    refused(new, "instances_val.json: 0.png has an object of class x, which is on no image to train on")
    gone = changed("train", lambda content: content["images"][0].update(file_name="none.png"))
    refused(gone, "none.png: not a file")
    refused(coco / "train", r"has neither .*instances_train.json \(COCO\) nor .*train.txt \(Pascal VOC\)")
    refused(coco, "8 photos to train on, a batch has 16. Pass a smaller --batch-size", per_device_train_batch_size=16)
    bare = changed("train", lambda content: [one.pop("segmentation") for one in content["annotations"]])
    refused(bare, "--head mask-rcnn: not every object has a mask. Pass --head faster-rcnn", head="mask-rcnn")


def test_boxes_without_area_are_skipped_on_demand(example, coco, voc, tmp_path, capsys):
    """COCO's train2017 has two."""
    data = sys.modules[example.BoxedPhotos.__module__]
    before = data.open_split(coco, "train").content["annotations"]
    root = shutil.copytree(coco, tmp_path / "coco")
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][1]["bbox"][2] = 0
    file.write_text(json.dumps(content))
    assert data.open_split(root, "train", True).content["annotations"] == [before[0], *before[2:]]
    assert re.fullmatch(
        r"skipped: .*instances_train.json: annotation 2: its box .* has no area.*\n", capsys.readouterr().err
    )

    root = shutil.copytree(voc, tmp_path / "voc")
    file = root / "Annotations" / "train1.xml"
    box = ElementTree.fromstring(file.read_text()).find("object/bndbox")
    file.write_text(file.read_text().replace(f"<xmax>{box.findtext('xmax')}", f"<xmax>{box.findtext('xmin')}", 1))
    assert len(data.open_split(root, "train", True).content["annotations"]) == len(before) - 1
    assert re.fullmatch("skipped: .*train1.xml: object 1: its box .* has no area.*\n", capsys.readouterr().err)


def test_bad_voc_is_refused(refused, voc, tmp_path):
    root = shutil.copytree(voc, tmp_path / "voc")
    file = root / "Annotations" / "train1.xml"
    text = file.read_text()
    box = ElementTree.fromstring(text).find("object/bndbox")
    left, right = (f"<{name}>{box.findtext(name)}</{name}>" for name in ("xmin", "xmax"))
    file.write_text(text.replace(right, f"<xmax>{box.findtext('xmin')}</xmax>", 1))
    refused(root, r"train1.xml: object 1: its box \[.*0, 0\] has no area. Correct or remove it, or pass")
    file.write_text(text.replace(left, "", 1))
    refused(root, r"train1.xml: object 1 has no box of four numbers \(xmin, ymin, xmax, ymax\)")
    file.write_text(text[:-5])
    refused(root, "train1.xml: not XML that can be read")
    file.write_text(text.replace(right, "<xmax>90</xmax>", 1))
    refused(root, r"train1.xml: object 1: its box \(.*, 90, .*\) leaves the image of 64 x 64 pixels. Correct it")
    file.write_text(text)
    (root / "ImageSets" / "Main" / "val.txt").write_text("absent\n")
    refused(root, "val.txt: names absent, which is no image in")
    (root / "ImageSets" / "Main" / "val.txt").write_text("val0 1\nval1.png -1\n", encoding="utf-8-sig")
    for name in ("val0", "val1"):
        text = (root / "Annotations" / f"{name}.xml").read_text()
        marked = text.replace("<object>", "<object><difficult>1</difficult>")
        (root / "Annotations" / f"{name}.xml").write_text(marked)
    refused(root, "val.txt: no objects on its images, or difficult ones alone")
    refused(root / "absent", "absent: no such folder")


def test_exports_count_from_zero_and_have_parents_of_classes(example, coco, tmp_path):
    """As Roboflow writes them; names of images may begin with their folder."""
    data = sys.modules[example.BoxedPhotos.__module__]
    for part, name in (("train", "train"), ("val", "valid")):
        shutil.copytree(coco / part, tmp_path / name)
        content = json.loads((coco / "annotations" / f"instances_{part}.json").read_text())
        content["categories"].insert(0, {"id": 0, "name": "ellipse", "supercategory": "none"})
        for number, annotation in enumerate(content["annotations"]):
            annotation["id"] = number
        for image in content["images"]:
            image["file_name"] = f"{name}/{image['file_name']}"
        (tmp_path / name / "_annotations.coco.json").write_text(json.dumps(content))
    trained, validated = data.open_split(tmp_path, "train"), data.open_split(tmp_path, "validation")
    assert data.class_names(trained, validated) == ["ellipse", "rectangle"]
    photos = example.BoxedPhotos(validated, ["ellipse", "rectangle"], None)
    assert photos.categories == {0: 7, 1: 8} and len([photos.load(index) for index in range(3)]) == 3
    objects = [annotation for annotation in validated.content["annotations"] if annotation["image_id"] == 0]
    results = [{**{key: one[key] for key in ("image_id", "category_id", "bbox")}, "score": 1.0} for one in objects]
    content = validated.content | {"images": validated.content["images"][:1], "annotations": objects}
    assert precision(content, results, "box").summary["AP"] == pytest.approx(100)


def test_an_image_without_annotations_is_background(example, voc, tmp_path, capsys):
    data = sys.modules[example.BoxedPhotos.__module__]
    root = shutil.copytree(voc, tmp_path / "voc")
    (root / "Annotations" / "train3.xml").unlink()
    selection = data.open_split(root, "train")
    assert "warning: 1 images have no annotations and count as background: " in capsys.readouterr().err
    assert selection.count == 8 and not [a for a in selection.content["annotations"] if a["image_id"] == 4]


def test_difficult_objects_are_neither_learned_nor_counted(example, voc, tmp_path):
    data = sys.modules[example.BoxedPhotos.__module__]
    root = shutil.copytree(voc, tmp_path / "voc")
    file = root / "Annotations" / "train0.xml"
    file.write_text(file.read_text().replace("</name>", "</name><difficult>1</difficult>"))
    selection = data.open_split(root, "train")
    crowds = [a for a in selection.content["annotations"] if a["iscrowd"]]
    assert crowds and {a["image_id"] for a in crowds} == {1}
    processor = example.build(str(default_checkpoint()), ["a"], False, "fcos", 8, 64)[1]
    assert not len(example.BoxedPhotos(selection, list(CLASSES.values()), processor, 48)[0]["labels"]["boxes"])


def test_damaged_photos_are_named_and_skipped_on_demand(example, coco, options, tmp_path, capsys):
    root = shutil.copytree(coco, tmp_path / "coco")
    for photo in ("train/6.png", "val/1.png"):
        (root / photo).write_bytes((root / photo).read_bytes()[:900])
    options["num_train_epochs"] = 1
    with pytest.raises(InputError, match=r"train/6.png: cannot be read completely .* Or pass --skip-bad-images"):
        example.finetune(str(root), tmp_path / "model", **options)
    shutil.rmtree(tmp_path / "model-run")
    example.finetune(str(root), tmp_path / "model", skip_bad_images=True, **options)
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped: " in line]
    assert len(lines) == 2 and "train/6.png" in lines[0] and "val/1.png" in lines[1]
