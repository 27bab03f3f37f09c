"""Exported folders in the clients that people deploy with: optimum, transformers.js under Node and in a browser.

`make test-clients` installs the clients; without them these tests are skipped.
"""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    SegformerImageProcessor,
)

from hf_models.conversion.export import export
from hf_models.inference import classify_images
from hf_models.inference.classify import load_classifier
from hf_models.inference.images import read_image
from hf_models.inference.loading import load_model
from hf_models.inference.names import default_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "examples" / "browser"
PHOTO = ROOT / "examples" / "sample.jpg"
CLIENTS = Path(__file__).with_name("clients")
OPTIMUM = os.environ.get("HF_MODELS_OPTIMUM_PYTHON")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CLASSES = ["sky", "tree", "road"]

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
needs_optimum = pytest.mark.skipif(
    OPTIMUM is None, reason="HF_MODELS_OPTIMUM_PYTHON names no Python that has optimum-onnx"
)
needs_javascript = pytest.mark.skipif(
    not (shutil.which("node") and (PAGE / "node_modules" / "@huggingface" / "transformers").is_dir()),
    reason="transformers.js is not installed (`npm install --ignore-scripts` in examples/browser)",
)


def run(command: list, **variables: str) -> dict:
    """The last line that a client prints, as JSON."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def in_optimum(folder: Path, task: str) -> dict:
    return run([OPTIMUM, CLIENTS / "run_optimum.py", folder, task, PHOTO], HF_HUB_OFFLINE="1")


def in_transformers_js(folder: Path, task: str) -> dict:
    return run(["node", CLIENTS / "run_transformers_js.mjs", PAGE, folder, task, PHOTO])


def segmenter(folder: Path) -> Path:
    """A segmentation model with random weights, but for the backbone, and equal areas in each of three classes."""
    torch.manual_seed(0)
    backbone = AutoConfig.from_pretrained(default_checkpoint())
    backbone.out_features = ["stage1", "stage2", "stage3"]
    config = AutoConfig.for_model(
        "segformer_head", backbone_config=backbone, hidden_size=16, id2label=dict(enumerate(CLASSES))
    )
    config.label2id = {name: i for i, name in config.id2label.items()}
    AutoModelForSemanticSegmentation.from_config(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 96, "width": 128}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folders of a classifier and of a segmenter, and what PyTorch makes of the photo: (pixel_values, logits)."""
    folder = tmp_path_factory.mktemp("exported")
    source = segmenter(folder / "source")
    export("default", folder / "classifier")
    export(str(source), folder / "segmenter")
    expected = {}
    for task, (processor, model) in (
        ("image-classification", load_classifier()),
        ("image-segmentation", load_model(source, AutoModelForSemanticSegmentation)),
    ):
        pixel_values = processor(read_image(PHOTO), return_tensors="pt").pixel_values
        with torch.no_grad():
            expected[task] = pixel_values, model(pixel_values).logits
    return folder, expected


TASKS = {"image-classification": "classifier", "image-segmentation": "segmenter"}


def grey_levels(answer: dict, pixel_values: torch.Tensor) -> torch.Tensor:
    """By how many of 255 grey levels the pixels of a client differ, about: the standard deviation is one for all."""
    return (torch.tensor(answer["pixel_values"]) - pixel_values.flatten()).abs() * 255 * 0.225


@needs_optimum
@pytest.mark.parametrize("task", TASKS)
def test_optimum_sees_the_same_pixels_and_says_the_same(exported, task):
    folder, expected = exported
    answer = in_optimum(folder / TASKS[task], task)
    pixel_values, logits = expected[task]
    assert grey_levels(answer, pixel_values).max() < 0.5
    assert (torch.tensor(answer["logits"]) - logits.flatten()).abs().max() <= 1e-4 * logits.abs().max()
    if task == "image-classification":
        (best, *_) = classify_images([PHOTO])[0]
        assert answer["says"][0]["label"] == best["label"] == "espresso"
        assert answer["says"][0]["score"] == pytest.approx(best["score"], abs=1e-3)
    else:
        assert set(answer["says"]) <= set(CLASSES)


@needs_javascript
@pytest.mark.parametrize("task", TASKS)
def test_transformers_js_says_the_same_on_the_same_pixels(exported, task):
    folder, expected = exported
    answer = in_transformers_js(folder / TASKS[task], task)
    pixel_values, logits = expected[task]
    # after pixels.js; without, transformers.js does not smooth under Node (9 grey levels on average on this photo)
    assert grey_levels(answer, pixel_values).mean() < 0.1
    assert (torch.tensor(answer["logits"]) - logits.flatten()).abs().max() <= 0.02 * logits.abs().max()
    if task == "image-classification":
        assert answer["says"][0]["label"] == "espresso" and answer["says"][0]["score"] > 0.9
        assert answer["alone"][0]["label"] == "espresso"
    else:
        assert sum(answer["says"].values()) == 96 * 128
        assert set(answer["says"]) <= set(CLASSES)


@needs_javascript
def test_transformers_js_runs_a_mask2former(tmp_path):
    pytest.importorskip("scipy", reason="transformers builds Mask2Former only where scipy is installed")
    torch.manual_seed(0)
    backbone = AutoConfig.for_model(
        "flash_internimage",
        depths=(1, 1, 1, 1),
        hidden_sizes=(16, 32, 64, 128),
        groups=(1, 2, 4, 8),
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    widths = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 32)  # the fewest that there can be
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "num_queries": 1}
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}
    config = AutoConfig.for_model("mask2former", backbone_config=backbone, **widths, **layers, **names)
    model = AutoModelForUniversalSegmentation.from_config(config)
    with torch.no_grad():
        model.class_predictor.bias[1] += 9  # its one query is sure to see a tree
    model.save_pretrained(tmp_path / "source")
    SegformerImageProcessor(size={"height": 96, "width": 128}).save_pretrained(tmp_path / "source")
    export(str(tmp_path / "source"), tmp_path / "exported")
    answer = in_transformers_js(tmp_path / "exported", "image-segmentation")
    assert answer["says"] == {"tree": 96 * 128}


@needs_javascript
@pytest.mark.parametrize(
    ("size", "new_size", "resample"),
    [((61, 47), (256, 192), 2), ((613, 411), (100, 67), 2), ((600, 400), (120, 80), 3)],
)
def test_pixels_are_those_of_pillow(size, new_size, resample, tmp_path):
    width, height = size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.tofile(tmp_path / "image")
    script = f"""
        import {{ readFileSync, writeFileSync }} from "node:fs";
        import {{ resize }} from {json.dumps((PAGE / "pixels.js").as_uri())};
        const image = {{ data: readFileSync("image"), width: {width}, height: {height} }};
        writeFileSync("resized", resize(image, {new_size[0]}, {new_size[1]}, {resample}).data);
    """
    subprocess.run(["node", "--input-type=module", "-e", script], check=True, cwd=tmp_path)
    got = np.fromfile(tmp_path / "resized", np.uint8).reshape(*new_size[::-1], 3).astype(int)
    difference = abs(got - np.asarray(Image.fromarray(image).resize(new_size, resample)))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # Pillow computes in whole numbers


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def page(exported, tmp_path):
    """The page with the exported models in a headless browser; what it asks for must lie beside it."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    folder, _ = exported
    for file in ("index.html", "pixels.js", "node_modules"):
        (tmp_path / file).symlink_to(PAGE / file)
    for name in TASKS.values():
        (tmp_path / name).symlink_to(folder / name)
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, api.sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1100, "height": 760})
        page.set_default_timeout(180_000)
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        url = f"http://127.0.0.1:{server.server_port}/"
        page.goto(url)
        yield page
        browser.close()
        server.shutdown()
    outside = [request for request in requests if not request.startswith((url, "blob:", "data:"))]
    assert not outside


@needs_javascript
def test_the_page_classifies_and_segments_a_dropped_photo(page, tmp_path):
    data = PHOTO.read_bytes()
    page.evaluate(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "photo.jpg", {type: "image/jpeg"}));
            document.querySelector("#drop").dispatchEvent(new DragEvent("drop", {dataTransfer: transfer}));
        }""",
        list(data),
    )
    page.wait_for_selector("#areas li")
    best, *others = page.locator("#labels li").all_inner_texts()
    label, share = best.split("\n")
    assert label == "espresso" and float(share.split()[0]) == pytest.approx(97.8, abs=1) and len(others) == 4
    areas = dict(text.split("\n") for text in page.locator("#areas li").all_inner_texts())
    assert set(areas) <= set(CLASSES)
    assert sum(float(share.split()[0]) for share in areas.values()) == pytest.approx(100, abs=1.5)
    assert "ms" in page.locator("#segmenter").inner_text()


@needs_javascript
def test_the_page_says_what_is_wrong(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    page.locator("#file").set_input_files(tmp_path / "notes.txt")
    page.wait_for_function("document.querySelector('#classifier').innerText.includes('no image')")
    page.goto(page.url + "?classifier=nowhere")
    page.wait_for_function("document.querySelector('#classifier').innerText.includes('no folder “nowhere”')")
