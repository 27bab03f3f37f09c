"""A Hub that is silent, breaks off, sends wrong bytes or changes in between: one line, or the right model."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers.utils.hub
from huggingface_hub import constants, get_session
from PIL import Image
from safetensors.torch import load_file, save
from transformers import AutoModelForImageClassification
from typer.testing import CliRunner

from hf_models.cli import app

from ..harness.conversion_tester import read_manifest, tensors_of, write_original, write_upstream
from ..harness.hub_double import Hub
from ..harness.hub_faults import after, changed, cut, failing, paused, stalled, wrong_length
from ..harness.hub_routes import TOKEN
from ..harness.hub_tester import tiny_folder

UPSTREAM, FILE = "acme/upstream", "hf://acme/files/original.pth"
COMMIT = "GET /api/models/[^/]+/[^/]+(/revision/main)?$"  # the request for it


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What the Hub holds, on disk: upstream's format, a single checkpoint, a model."""
    folder = tmp_path_factory.mktemp("folders")
    write_upstream(folder / "upstream")
    write_original(folder, read_manifest("internimage_tiny_l"))
    tiny_folder(folder / "smt", "smt")
    Image.effect_noise((80, 64), 64).convert("RGB").save(folder / "photo.png")
    return folder


@pytest.fixture
def hub(folders, tmp_path, monkeypatch):
    """A Hub that is asked by this process, which loses its patience soon."""
    with Hub() as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the client's attempts
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.add(UPSTREAM, contents(folders / "upstream"))
        hub.add("acme/files", {"original.pth": (folders / "original.pth").read_bytes()})
        hub.add("acme/smt", contents(folders / "smt"))
        yield hub


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def convert(source: str, folders: Path, output: Path):
    options = ["--original-config", folders / "original.json"] if source == FILE else []
    return run("convert", source, output, *options)


def check_refused(result, tmp_path: Path) -> str:
    """Status 2, one line, no output; returns the line."""
    assert result.exit_code == 2 and not result.stdout, result.output
    (line,) = result.stderr.splitlines()
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}
    assert not list(tmp_path.rglob("*.incomplete"))
    return line


def check_converted(result, folders: Path, output: Path) -> dict:
    """The weights are upstream's; returns the report."""
    assert result.exit_code == 0, result.output
    upstream, written = load_file(folders / "upstream" / "model.safetensors"), tensors_of(output)
    original = upstream["model.levels.0.blocks.0.layer_scale1"]
    assert torch.equal(written["internimage.encoder.stages.0.layers.0.layer_scale1.scale"], original)
    return json.loads((output / "conversion_report.json").read_text())


@pytest.mark.parametrize(
    ("source", "silent"),
    [(UPSTREAM, COMMIT), (UPSTREAM, "GET .*/tree"), (UPSTREAM, "HEAD"), (FILE, "HEAD")],
)
def test_headers_never_come(source, silent, hub, folders, tmp_path):
    hub.inject(silent, stalled(hub.closing, 300))
    line = check_refused(convert(source, folders, tmp_path / "out"), tmp_path)
    assert line.startswith(f"{source}: cannot be downloaded (ReadTimeout: ")
    assert line.endswith("Check the connection and run the command again.")


def test_classify_with_a_silent_hub(hub, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)  # it tries one file after the other
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.inject("", stalled(hub.closing, 300))
    line = check_refused(run("classify", folders / "photo.png", "--model", "acme/smt"), tmp_path)
    assert line.startswith("acme/smt: cannot be loaded as an image classifier (")
    assert line.endswith("Check the name, and the connection to the Hub.")


# what becomes of the weights, and how many requests of the client it takes to give up
WEIGHTS_FAULTS = {
    "paused": (lambda hub: paused(500, hub.closing), 6),
    "cut": (lambda hub: cut(500), 6),
    "longer": (lambda hub: wrong_length(5), 6),
    "shorter": (lambda hub: wrong_length(-5), 1),
}


@pytest.mark.parametrize("name", WEIGHTS_FAULTS)
def test_weights_that_never_arrive(name, hub, folders, tmp_path):
    """Refused after some attempts; when the Hub is well again, the same command completes."""
    fault, times = WEIGHTS_FAULTS[name]
    hub.inject("GET /storage", fault(hub), times)
    line = check_refused(convert(UPSTREAM, folders, tmp_path / "out"), tmp_path)
    assert line.startswith(f"{UPSTREAM}: cannot be downloaded (")
    assert line.endswith("Check the connection and run the command again.")
    check_converted(convert(UPSTREAM, folders, tmp_path / "out"), folders, tmp_path / "out")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("source", [UPSTREAM, FILE])
def test_a_hiccup_of_the_server(source, status, hub, folders, tmp_path):
    """It is asked again, and a line says so."""
    hub.inject("GET /storage", failing(status), times=2)
    result = convert(source, folders, tmp_path / "out")
    check_converted(result, folders, tmp_path / "out")
    assert re.findall(r"answered (\d+), asked again in (\d) s", result.stderr) == [
        (str(status), "1"),
        (str(status), "2"),
    ]


@pytest.mark.parametrize("where", ["GET /storage", "GET .*/config.json", "HEAD .*/model.safetensors"])
def test_a_hiccup_when_a_model_is_loaded(where, hub, folders):
    hub.inject(where, failing(503), times=1)
    result = run("classify", folders / "photo.png", "--model", "acme/smt")
    assert result.exit_code == 0, result.output
    assert ("answered 503" in result.stderr) == where.startswith("GET"), "the client itself repeats the others"


def test_a_server_that_stays_ill(hub, folders, tmp_path):
    """Refused in the end; the client itself is as before."""
    client = get_session()
    send = client.send
    hub.inject("GET /storage", failing(503), times=5)
    result = convert(UPSTREAM, folders, tmp_path / "out")
    *told, line = result.stderr.splitlines()
    assert result.exit_code == 2 and len(told) == 4 and all("answered 503" in note for note in told)
    assert line.startswith(f"{UPSTREAM}: cannot be downloaded (") and "503" in line
    assert client.send == send
    hub.inject("GET /storage", failing(404), times=1)
    assert "answered" not in convert(UPSTREAM, folders, tmp_path / "out").stderr, "only what may pass is repeated"


@pytest.mark.parametrize("source", [UPSTREAM, FILE])
def test_a_cut_download_goes_on(source, hub, folders, tmp_path):
    ranges = []

    def fault(request, respond):
        ranges.append(request.headers.get("Range"))
        return (respond if len(ranges) > 1 else lambda: cut(5000)(request, respond))()

    hub.inject("GET /storage", fault)
    result = convert(source, folders, tmp_path / "out")
    assert ranges == [None, "bytes=5000-"]
    report = check_converted(result, folders, tmp_path / "out")
    assert [file["verified"] for file in report["source"]["files"]] == [True]


@pytest.mark.parametrize("source", [UPSTREAM, FILE])
@pytest.mark.parametrize("damage", [lambda body: body[:-1] + bytes([body[-1] ^ 1]), lambda body: body[::-1]])
def test_wrong_bytes(source, damage, hub, folders, tmp_path):
    """The client takes them; their sha256 is not the one that the Hub gave, which the line says before all else."""
    hub.inject("GET /storage", changed(damage), times=1)
    line = check_refused(convert(source, folders, tmp_path / "out"), tmp_path)
    blob = Path(line.partition(". Delete ")[2].partition(" and download it again")[0])
    assert blob.is_relative_to(tmp_path / "cache") and f"is not the published {blob.name[:8]}..." in line
    assert check_refused(convert(source, folders, tmp_path / "out"), tmp_path) == line, "the cache keeps it"
    blob.unlink()
    report = check_converted(convert(source, folders, tmp_path / "out"), folders, tmp_path / "out")
    assert [file["verified"] for file in report["source"]["files"]] == [True]


@pytest.mark.parametrize("moment", [COMMIT, "GET .*/tree", "HEAD .*/config.json", "GET /storage"])
def test_convert_takes_one_commit(moment, hub, folders, tmp_path):
    """However the branch moves: the config and the weights are those of the first request."""
    first = hub.repos["models", UPSTREAM].branches["main"]
    weights = {name: tensor * 2 for name, tensor in load_file(folders / "upstream" / "model.safetensors").items()}
    moved = {"config.json": b"{}", "model.safetensors": save(weights)}
    hub.inject(moment, after(lambda: hub.add(UPSTREAM, moved)), times=1)
    report = check_converted(convert(UPSTREAM, folders, tmp_path / "out"), folders, tmp_path / "out")
    assert report["source"]["revision"] == first != hub.repos["models", UPSTREAM].branches["main"]


@pytest.mark.parametrize("pinned", [True, False])
def test_from_pretrained_takes_one_commit(pinned, hub, folders):
    """After each of its requests the branch moves; config and weights belong together, and are the pinned ones."""
    first = hub.repos["models", "acme/smt"].branches["main"]
    original = load_file(folders / "smt" / "model.safetensors")
    config = json.loads((folders / "smt" / "config.json").read_text())
    numbers = itertools.count(1)

    def move():
        number = next(numbers)
        changed_config = config | {"id2label": {str(index): str(number) for index in range(10)}}
        weights = {name: torch.full_like(tensor, number) for name, tensor in original.items()}
        moved = {"config.json": json.dumps(changed_config).encode(), "model.safetensors": save(weights)}
        hub.add("acme/smt", moved)

    hub.inject("", after(move))
    model = AutoModelForImageClassification.from_pretrained("acme/smt", revision=first if pinned else None)
    assert next(numbers) > 2, "the branch moved"
    assert model.config.id2label[0] == "LABEL_0"
    assert all(torch.equal(tensor, original[name]) for name, tensor in model.state_dict().items())


def test_index_that_leaves_the_folder(hub, folders, tmp_path):
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "../../../../photo.safetensors"}}
    config = (folders / "upstream" / "config.json").read_bytes()
    hub.add("acme/index", {"config.json": config, "model.safetensors.index.json": json.dumps(index).encode()})
    line = check_refused(convert("acme/index", folders, tmp_path / "out"), tmp_path)
    assert line.endswith('shard "../../../../photo.safetensors" leaves the folder. Refused.')


def test_one_line_of_a_process(hub, tmp_path):
    """The client's own reports, of attempts and of their failure, are not among it."""
    hub.inject("GET /storage", cut(500), times=1)
    hub.inject("GET /storage", wrong_length(-5))
    command = [sys.executable, "-m", "hf_models.cli", "convert", UPSTREAM, str(tmp_path / "out")]
    environment = os.environ | hub.environment(tmp_path / "cache")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{UPSTREAM}: cannot be downloaded (OSError: Consistency check failed")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
