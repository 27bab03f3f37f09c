"""The demo, in a real browser, on this machine and as a Space would start it from the files that it is given.

    python tests/cli/test_demo.py

takes the screenshot in `examples/space` anew.
"""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from huggingface_hub import RepoCard
from PIL import Image
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.errors import InputError
from hf_models.inference.classify import classify_images, load_classifier
from hf_models.visualize.image_view import prepare_image
from hf_models.visualize.sampling_points import sampling_points

ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "examples" / "space"
PHOTO = ROOT / "examples" / "sample.jpg"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# no sandbox: it cannot be had as root; the rest keeps the browser itself from calling anywhere
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(command, cwd=ROOT, environment=os.environ):
    """Runs a server until the end of the block; gives the address that it prints."""
    environment = {**environment, "PYTHONUNBUFFERED": "1", "GRADIO_SERVER_PORT": str(free_port())}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output = ""
    try:
        while not (address := re.search(r"http://127\.0\.0\.1:\d+", output)):
            line = process.stdout.readline()
            assert line, f"the server ended: {output}"
            output += line
        yield address[0]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


class Space:
    """What `make space` lays out of a copy of the repository, and an environment that has no other hf_models."""

    def __init__(self, folder):
        from ..harness.environment import Environment

        self.environment = Environment(folder, package=False)
        repository = folder / "repository"
        made = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests")
        shutil.copytree(ROOT, repository, ignore=made)
        (repository / "dist").mkdir()
        wheel = [sys.executable, "-c", "from setuptools import build_meta; build_meta.build_wheel('dist')"]
        lay_out = ["make", "--assume-old=wheel", "space", f"BIN={Path(sys.executable).parent}"]
        for command in (wheel, lay_out):
            done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        self.files = repository / "dist" / "space"

    def run(self, *arguments):
        """What Python prints that runs among the files of the Space."""
        done = self.environment.run(*arguments, cwd=self.files)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def serving(self, **variables):
        return serving([self.environment.python, "app.py"], self.files, self.environment.variables | variables)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    return Space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A small model that `hf-models convert` wrote."""
    from hf_models.conversion import convert

    from ..harness.conversion_tester import read_manifest, write_original

    folder = tmp_path_factory.mktemp("converted")
    checkpoint, config = write_original(folder, read_manifest("internimage_tiny_l"))
    convert(checkpoint, folder / "model", original_config=config)
    return folder / "model"


@contextmanager
def new_page(url):
    """A page of a headless browser at `url`; at the end everything that it asked for must have come from there."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.set_default_timeout(120_000)
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(url)
        yield page
        browser.close()
    hosts = {urlsplit(request).netloc for request in requests if request.startswith("http")}
    assert hosts == {urlsplit(url).netloc}


def upload(page, path):
    page.locator("#photo input[type=file]").set_input_files(path)
    page.wait_for_selector("#picture img")


def shown_picture(page):
    response = page.request.get(page.locator("#picture img").get_attribute("src"))
    return np.asarray(Image.open(io.BytesIO(response.body())).convert("RGB"))


@pytest.fixture
def browser():
    """Skips a test where there is no browser, or nothing to drive it or to serve it."""
    pytest.importorskip("gradio", reason="gradio is not installed (extra `demo`)")
    pytest.importorskip("playwright", reason="playwright is not installed (`make test-browser`)")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")


def test_click_shows_the_sampling_points_of_the_pixel(browser, tmp_path):
    from hf_models.visualize.figures import figure_image
    from hf_models.visualize.sampling import draw_sampling

    from ..harness.visualize_tester import photo, save_model

    folder = save_model("flash_internimage", tmp_path / "model")
    image = photo(600, 400)
    image.save(tmp_path / "photo.png")
    processor, model = load_classifier(folder)
    pixel_values, view = prepare_image(image, processor)
    expected = sampling_points(model, pixel_values, view, at=(410, 120))  # a position of its own, far from the middle
    expected = np.asarray(figure_image(draw_sampling(image, view, expected)))

    command = [sys.executable, "-m", "hf_models.cli", "demo", "--model", folder, "--device", "cpu"]
    command += ["--port", str(free_port())]
    with serving(command) as url, new_page(url) as page:
        upload(page, tmp_path / "photo.png")
        page.wait_for_function("document.querySelector('#labels').innerText.includes('%')")
        assert set(re.findall(r"LABEL_\d", page.locator("#labels").inner_text())) == {f"LABEL_{i}" for i in range(5)}
        first = shown_picture(page)
        assert first.shape == expected.shape and (first != expected).any()

        thumbnail = page.locator("#photo img")
        box = thumbnail.bounding_box()
        source = page.locator("#picture img").get_attribute("src")
        thumbnail.click(position={"x": 410 / image.width * box["width"], "y": 120 / image.height * box["height"]})
        page.wait_for_function("before => document.querySelector('#picture img').src !== before", arg=source)
        np.testing.assert_array_equal(shown_picture(page), expected)
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        # outside of what the model sees: one line says so, and the picture stays
        thumbnail.click(position={"x": 3, "y": 60})
        page.get_by_text("the model does not see it").wait_for()
    assert min(Image.open(tmp_path / "page.png").size) > 500


def test_a_detector_shows_its_objects(browser, tmp_path):
    from hf_models.detection import class_colours, detect, draw_detections, load_detector

    from ..harness.detection_tester import make_detector

    processor, model = load_detector(make_detector(tmp_path / "model"))
    photo = Image.open(PHOTO).convert("RGB")
    found = detect(model, processor, photo)
    command = [sys.executable, "-m", "hf_models.cli", "demo", "--model", tmp_path / "model", "--device", "cpu"]
    command += ["--port", str(free_port())]
    with serving(command) as url, new_page(url) as page:
        upload(page, PHOTO)
        page.wait_for_function("document.querySelector('#labels').innerText.includes('%')")
        assert page.locator("#labels").inner_text().count("LABEL_") >= len(found) > 0
        expected = draw_detections(photo, found, class_colours(model.config))
        np.testing.assert_array_equal(shown_picture(page), np.asarray(expected))


def test_space_needs_nothing_but_what_is_uploaded(space, converted):
    code = """if True:
        import hf_models, json, sys
        from hf_models.inference import classify_images
        answers = [classify_images([sys.argv[1]], model)[0] for model in ("default", sys.argv[2])]
        print(json.dumps([hf_models.__file__, *answers]))
    """
    file, *answers = json.loads(space.run("-c", code, PHOTO, converted).splitlines()[-1])
    assert Path(file) == space.files / "hf_models" / "__init__.py"
    for answer, model in zip(answers, ("default", converted), strict=True):
        ((best, *_),) = classify_images([PHOTO], model)
        assert answer[0]["label"] == best["label"] and answer[0]["score"] == pytest.approx(best["score"], rel=1e-3)
    assert {path.name for path in SPACE.iterdir()} <= {path.name for path in space.files.iterdir()}


@pytest.mark.parametrize("model", ["embedded", "converted"])
def test_space_answers_without_a_browser(space, converted, model):
    client = pytest.importorskip("gradio_client", reason="gradio is not installed (extra `demo`)")
    variables = {"MODEL": str(converted)} if model == "converted" else {}
    ((best, *_),) = classify_images([PHOTO], variables.get("MODEL", "default"))
    with space.serving(**variables) as url:
        answer = client.Client(url, verbose=False).predict(client.handle_file(PHOTO), api_name="/labels")
    assert answer["label"] == best["label"]


def test_space_labels_a_photo_and_switches_pictures(browser, space):
    ((best, *_),) = classify_images([PHOTO])
    with space.serving() as url, new_page(url) as page:
        upload(page, PHOTO)
        page.locator("#labels").get_by_text(best["label"]).first.wait_for()
        first, source = shown_picture(page), page.locator("#picture img").get_attribute("src")
        page.get_by_label("features").click()
        page.wait_for_function("before => document.querySelector('#picture img').src !== before", arg=source)
        second = shown_picture(page)
    assert first.shape != second.shape and first.std() > 10 and second.std() > 10


def test_space_asks_for_what_the_package_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = {line for line in project["dependencies"] if ";" not in line} | {*extras["visualize"], *extras["demo"]}
    asked = set((SPACE / "requirements.txt").read_text(encoding="utf-8").split())
    assert asked == {line for line in needed if not line.startswith("hf-models")}


def test_space_card():
    card = RepoCard.load(SPACE / "README.md")
    assert re.findall(r"hf upload YOU/YOUR-SPACE (.*)", card.text) == ["dist/space . --repo-type space"]
    assert "make space\n" in card.text
    assert card.data.sdk == "gradio" and (SPACE / card.data.app_file).is_file() and card.data.license == "mit"
    (picture,) = re.findall(r"\]\((.*?\.png)\)", card.text)
    assert (SPACE / picture).stat().st_size < 200_000
    with Image.open(SPACE / picture) as screenshot:
        assert screenshot.format == "PNG"


@pytest.mark.parametrize("missing", ["gradio", "matplotlib"])
def test_without_what_it_needs_the_demo_is_one_line(monkeypatch, missing):
    if missing == "gradio":
        pytest.importorskip("hf_models.visualize.figures", exc_type=InputError)
    monkeypatch.setitem(sys.modules, missing, None)
    for name in ("hf_models.visualize.demo", *(("hf_models.visualize.figures",) if missing == "matplotlib" else ())):
        monkeypatch.delitem(sys.modules, name, raising=False)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 2 and f"{missing}: not installed" in result.stderr
    assert result.stderr.count("\n") == 1


if __name__ == "__main__":
    with serving([sys.executable, SPACE / "app.py"]) as url, new_page(url) as page:
        upload(page, PHOTO)
        page.wait_for_timeout(2000)  # animations
        screenshot = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    screenshot = screenshot.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    screenshot.save(SPACE / "screenshot.png", optimize=True)
