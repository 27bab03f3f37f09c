"""`hf-models detect`, its overlay, and the pipelines for the same models."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from transformers import (
    AutoConfig,
    AutoModelForObjectDetection,
    DetrImageProcessorPil,
    RTDetrImageProcessorPil,
    ViTImageProcessorPil,
    pipeline,
)
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.detection import Detection, detect, draw_detections, load_detector
from hf_models.errors import InputError

from ..harness.detection_tester import make_detector
from ..harness.peak_memory import peak_memory


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_detector(tmp_path_factory.mktemp("detector") / "model")


@pytest.fixture
def photo(tmp_path):
    """A photo as phones store it: on its side, with the note that it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((180, 240)).save(tmp_path / "photo.jpg", exif=exif)
    return tmp_path / "photo.jpg"  # upright, 240 wide and 180 high


def run(*arguments):
    return CliRunner().invoke(app, ["detect", *map(str, arguments)])


def test_the_command_prints_what_python_finds(folder, photo):
    processor, model = load_detector(folder)
    image = ImageOps.exif_transpose(Image.open(photo))
    expected = detect(model, processor, image, threshold=0.2)
    assert len(expected) == 10 and expected == sorted(expected, key=lambda one: -one.score)
    (entry,) = json.loads(run(photo, "--model", folder, "--threshold", 0.2, "--json").stdout)
    assert entry["image"] == str(photo)
    for found, one in zip(entry["objects"], expected, strict=True):
        assert found == one.to_dict()
        assert found["mask"]["size"] == [180, 240] and sum(found["mask"]["counts"][1::2]) == one.mask.sum()
    lines = run(photo, "--model", folder, "--threshold", 0.2).stdout.splitlines()
    assert lines[0] == str(photo) and len(lines) == 11
    best = expected[0]
    assert lines[1].split() == [f"{best.score:.1%}", *(f"{edge:.1f}" for edge in best.box), best.label]
    assert "nothing above 100%" in run(photo, "--model", folder, "--threshold", 1).stdout


def test_pipelines_find_the_same(folder, photo):
    processor, model = load_detector(folder)
    image = ImageOps.exif_transpose(Image.open(photo))
    expected = detect(model, processor, image, threshold=0.5)
    found = pipeline("object-detection", model=str(folder))(str(photo))
    assert [(one["score"], one["label"]) for one in found] == [(one.score, one.label) for one in expected]
    assert [tuple(one["box"].values()) for one in found] == [tuple(map(int, one.box)) for one in expected]
    segments = pipeline("image-segmentation", model=str(folder))(str(photo), threshold=0.5)
    covered = torch.zeros(180, 240, dtype=torch.bool)
    for one, segment in zip(expected, segments, strict=True):
        assert (segment["label"], segment["score"]) == (one.label, round(one.score, 6))
        assert torch.equal(torch.from_numpy(np.array(segment["mask"]) > 0), one.mask & ~covered)
        covered |= one.mask


def test_pipelines_without_the_package(folder, photo, tmp_path):
    """The code beside the model does without it, and finds the same."""
    code = """if True:
        import json, sys
        sys.modules["hf_models"] = None
        from transformers import pipeline
        found = [
            pipeline(task, model=sys.argv[1], trust_remote_code=True)(sys.argv[2], threshold=0.5)
            for task in ("object-detection", "image-segmentation")
        ]
        masks = [segment["mask"].histogram()[255] for segment in found[1]]
        print(json.dumps([found[0], masks]))
    """
    done = subprocess.run(
        [sys.executable, "-c", code, folder, photo],
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "HF_MODELS_KERNELS": "off"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    boxes, masks = json.loads(done.stdout.splitlines()[-1])
    expected = pipeline("object-detection", model=str(folder))(str(photo))
    assert [(one["label"], one["box"]) for one in boxes] == [(one["label"], one["box"]) for one in expected]
    assert len(masks) == len(boxes) and sum(masks) > 0


def test_pictures_of_one_and_of_several_images(folder, photo, tmp_path):
    assert run(photo, "--model", folder, "--out", tmp_path / "overlay.png").exit_code == 0
    assert Image.open(tmp_path / "overlay.png").size == (240, 180)
    other = tmp_path / "other.png"
    Image.new("RGB", (60, 50)).save(other)
    (tmp_path / "pictures").mkdir()
    result = run(photo, other, "--model", folder, "--out", tmp_path / "pictures", "--json")
    assert [entry["image"] for entry in json.loads(result.stdout)] == [str(photo), str(other)]
    assert {path.name: Image.open(path).size for path in (tmp_path / "pictures").iterdir()} == {
        "photo.jpg": (240, 180),
        "other.png": (60, 50),
    }


def test_what_cannot_be_done_is_one_line_and_writes_nothing(folder, photo, tmp_path):
    (tmp_path / "again").mkdir()
    copy = tmp_path / "again" / "photo.jpg"
    copy.write_bytes(photo.read_bytes())
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    before = photo.read_bytes()
    model = ["--model", folder]
    for arguments, message in (
        ([photo], "`hf-models list --task object-detection`"),
        ([photo, "--model", "default"], "Use `hf-models classify`"),
        ([photo, *model, "--threshold", 1.5], "--threshold must lie in [0, 1], got 1.5"),
        ([photo, *model, "--out", tmp_path / "overlay.txt"], "not a name of an image file"),
        ([photo, *model, "--out", tmp_path / "none" / "overlay.png"], "there is no folder"),
        ([photo, *model, "--out", photo], "would be overwritten"),
        ([photo, *model, "--out", tmp_path], "would be overwritten"),
        ([photo, copy, *model, "--out", tmp_path / "overlay.png"], "no folder, which 2 images need"),
        ([photo, copy, *model, "--out", pictures], "two images have this name"),
        ([photo, tmp_path / "none.jpg", *model, "--out", pictures], "none.jpg: no such file"),
        ([photo, *model, "--device", "tpu"], "tpu: no such device"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and message in result.stderr, (arguments, result.output)
        assert result.stderr.count("\n") == 1 and not result.stdout
    assert not list(pictures.iterdir()) and photo.read_bytes() == before


def test_a_detector_where_another_model_is_wanted(folder, photo, tmp_path):
    for arguments in (
        ["classify", photo, "--model", folder],
        ["segment", photo, "--model", folder, "--out", tmp_path / "overlay.png"],
    ):
        result = CliRunner().invoke(app, [*map(str, arguments)])
        assert result.exit_code == 2 and "is for object-detection" in result.stderr
        assert "Use `hf-models detect`" in result.stderr and result.stderr.count("\n") == 1


def test_a_processor_that_finds_no_boxes(folder, tmp_path):
    model = AutoModelForObjectDetection.from_pretrained(folder)
    model.save_pretrained(tmp_path)
    ViTImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="its ViTImageProcessorPil finds no boxes"):
        load_detector(tmp_path)


BACKBONE = {"hidden_sizes": [8, 16, 24, 32], "depths": [1] * 4, "mlp_ratios": [1] * 4}
SMALL = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 7}
RT_DETR = {"encoder_in_channels": [16, 24, 32], "encoder_hidden_dim": 32, "decoder_in_channels": [32, 32, 32]}
STOCK = {
    "detr": (DetrImageProcessorPil, [4], SMALL | {"encoder_layers": 1, "decoder_layers": 1}),
    "rt_detr": (RTDetrImageProcessorPil, [2, 3, 4], SMALL | RT_DETR | {"decoder_layers": 1}),
}


@pytest.mark.parametrize("model_type", STOCK)
def test_detectors_of_transformers(model_type, photo, tmp_path):
    processor, stages, kwargs = STOCK[model_type]
    backbone = AutoConfig.for_model("smt", **BACKBONE, num_attention_heads=[4, 4, 1, 1], out_indices=stages)
    config = AutoConfig.for_model(model_type, backbone_config=backbone, num_labels=3, **kwargs)
    AutoModelForObjectDetection.from_config(config).save_pretrained(tmp_path)
    processor(size={"height": 64, "width": 96}).save_pretrained(tmp_path)
    (entry,) = json.loads(run(photo, "--model", tmp_path, "--threshold", 0, "--json").stdout)
    assert len(entry["objects"]) == 7 and set(entry["objects"][0]) == {"label", "score", "box"}
    scores = [one["score"] for one in entry["objects"]]
    assert scores == sorted(scores, reverse=True)
    assert run(photo, "--model", tmp_path, "--threshold", 0, "--out", tmp_path / "overlay.png").exit_code == 0


@pytest.mark.parametrize("form", ["--json", "--out=overlay.jpg"])
def test_memory_of_a_large_photo(form, tmp_path):
    """12 megapixels and 100 objects: all masks together would take 1.2 GB more."""
    many = {"max_detections": 100, "rpn_post_nms": 1000, "rpn_nms_threshold": 0.9, "nms_threshold": 0.95}
    make_detector(tmp_path / "model", **many)
    Image.effect_noise((40, 30), 64).convert("RGB").resize((4000, 3000)).save(tmp_path / "photo.jpg")
    arguments = ["detect", "photo.jpg", "--model", "model", "--threshold", "0", "--device", "cpu", form]
    assert peak_memory(*arguments, cwd=tmp_path) < 1.2e6


# --- the overlay

GREY = (100, 100, 100)
COLOURS = {"cat": (255, 0, 0), "a class with a very long name": (0, 0, 255), "dog": (255, 255, 0)}


@pytest.fixture
def plates(monkeypatch):
    """The rectangles that are filled."""
    filled = []

    class Draw(ImageDraw.ImageDraw):
        def rectangle(self, xy, fill=None, **kwargs):
            super().rectangle(xy, fill=fill, **kwargs)
            if fill:
                filled.append(xy)

    monkeypatch.setattr(ImageDraw, "Draw", Draw)
    return filled


def draw(size, boxes, grid=None):
    width, height = size
    found = [
        Detection(name, 0.9, box, (height, width), grid)
        for name, box in zip(list(COLOURS) * len(boxes), boxes, strict=False)
    ]
    return draw_detections(Image.new("RGB", size, GREY), found, COLOURS)


@pytest.mark.parametrize("size", [(400, 300), (1200, 900), (90, 40), (24, 16), (3, 1)])
def test_plates_stay_inside(size, plates):
    width, height = size
    draw(size, [(0, 0, width, height), (-5, -7, width / 2, 9), (width - 3, height - 2, width + 9, height + 9)])
    assert len(plates) == 3
    for left, top, right, bottom in plates:
        assert 0 <= left <= right and 0 <= top <= bottom
        assert (right < width and bottom < height) or size == (3, 1), "no letter is that small"


def test_plates_do_not_cover_each_other(plates):
    draw((400, 300), [(50, 60, 200, 180)] * 6 + [(0, 0, 400, 300)] * 3)
    for index, (left, top, right, bottom) in enumerate(plates):
        for other in plates[:index]:
            assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top


def test_masks_tint_their_pixels_and_the_best_is_in_front():
    picture = draw((400, 300), [(100, 100, 200, 200), (120, 100, 220, 200)], torch.ones(28, 28))
    (red, green, blue), behind = picture.getpixel((150, 170)), picture.getpixel((210, 170))
    assert red > blue > green and behind[2] > behind[0] == behind[1]
    assert picture.getpixel((300, 250)) == GREY
    assert picture.getpixel((100, 150)) == COLOURS["cat"], "the line of its box"


def test_a_mask_is_inside_its_box():
    one = Detection("cat", 0.9, (10.0, 20.0, 30.0, 60.0), (80, 90), torch.ones(28, 28))
    assert one.mask.shape == (80, 90) and one.mask[21:59, 11:29].all() and one.mask.sum() <= 20 * 40
    assert Detection("cat", 0.9, one.box, one.image_size).mask is None
