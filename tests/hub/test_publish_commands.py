"""Commands against the double of the Hub: `push`, killed in the middle; `publish-all`; `convert` of upstream's Hub."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch
from huggingface_hub import HfApi, constants
from typer.testing import CliRunner

from hf_models import zoo
from hf_models.cli import app
from hf_models.conversion.publish import publish_all
from hf_models.errors import InputError
from hf_models.zoo import catalogue

from ..harness.conversion_tester import original_state, read_manifest, tensors_of, write_original, write_upstream
from ..harness.hub_double import Hub
from ..harness.hub_faults import stalled
from ..harness.hub_routes import TOKEN
from ..harness.hub_tester import tiny_folder


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with Hub() as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_killed_while_it_sends_the_weights(hub, tmp_path):
    """Nothing is published; the same command again, and the repository is what it would have been."""
    folder = tiny_folder(tmp_path / "smt", "smt")
    assert run("push", folder, "--repo", "acme/reference").exit_code == 0
    reference, arrived = hub.files("acme/reference"), threading.Event()
    hub.blobs.pop(hub.repos["models", "acme/reference"].commits.popitem()[1]["model.safetensors"].sha256)

    def fault(request, respond):
        arrived.set()
        return stalled(hub.closing, 60)(request, respond)

    hub.inject("PUT /storage", fault, times=1)
    command = [sys.executable, "-m", "hf_models.cli", "push", str(folder), "--repo", "acme/model"]
    push = subprocess.Popen(command, env=os.environ | hub.environment(tmp_path / "home"), stderr=subprocess.DEVNULL)
    assert arrived.wait(120)
    push.send_signal(signal.SIGKILL)
    assert push.wait() == -signal.SIGKILL
    assert hub.files("acme/model").keys() == {".gitattributes"}
    result = run("push", folder, "--repo", "acme/model")
    assert result.exit_code == 0 and "files changed" in result.stdout
    files = hub.files("acme/model")
    assert files.keys() == reference.keys()
    assert {name for name in files if files[name] != reference[name]} == {"README.md"}, "which names the repository"
    assert "nothing to change" in run("push", folder, "--repo", "acme/model").stdout


def test_dry_run_and_errors(hub, tmp_path):
    folder = tiny_folder(tmp_path / "smt", "smt")
    result = run("push", folder, "--repo", "acme/model", "--dry-run")
    assert result.exit_code == 0 and "modeling_smt.py" in result.stdout and "nothing was sent" in result.stdout
    result = run("push", tmp_path / "none", "--repo", "acme/model")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "config.json: no such file" in result.stderr
    result = run("kernels", "push", "deformable-conv", "--repo", "acme/other")
    assert result.exit_code == 2 and "models look for ORG/deformable-conv" in result.stderr
    assert not hub.requests


@pytest.fixture
def small_zoo(monkeypatch):
    """Three checkpoints: two of them in the format of InternImage-L, small, and one that is wider."""
    kwargs = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1], "groups": [2, 4, 8, 16]}
    kwargs |= {"offset_scale": 2.0, "post_norm": True, "layer_scale_init_value": 1e-5}
    published = dataclasses.replace(
        *(zoo.find_checkpoint("internimage_l_22kto1k_384"),),
        **{"name": "tiny", "file": "tiny.pth", "hub_repo": None, "num_labels": 10, "label_set": None},
        config_kwargs=kwargs,
    )
    upstream = dataclasses.replace(published, name="tiny_upstream", file=None, hub_repo="OpenGVLab/internimage_tiny")
    wide = kwargs | {"hidden_sizes": [32, 64, 128, 256]}
    wider = dataclasses.replace(published, name="wider", file="wider.pth", config_kwargs=wide)
    absent = dataclasses.replace(published, name="absent", file="absent.pth")
    monkeypatch.setattr(catalogue, "_checkpoints", lambda: (published, upstream, wider, absent))


@pytest.fixture
def originals(tmp_path):
    folder = tmp_path / "originals"
    folder.mkdir()
    source, arguments = write_original(folder, read_manifest("internimage_tiny_l"), name="tiny")
    arguments.unlink()
    (folder / "deeper").mkdir()
    shutil.copyfile(source, folder / "deeper" / "wider.pth")
    write_upstream(folder / "internimage_tiny")
    return folder


def test_upstream_repository(hub, small_zoo, originals, tmp_path, monkeypatch):
    """Weights and configs are read from upstream's own repository; its code is not even fetched."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    upstream = {path.name: path.read_bytes() for path in (originals / "internimage_tiny").iterdir()}
    code = dict.fromkeys(["configuration_internimage.py", "modeling_internimage.py"], b"import pkg_resources\n")
    commit = hub.add("OpenGVLab/internimage_tiny", upstream | code)
    result = run("convert", "OpenGVLab/internimage_tiny", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "conversion_report.json").read_text())
    assert report["name"] == "tiny_upstream" and report["source"]["revision"] == commit
    assert report["source"]["files"][0]["verified"], "the Hub names the file by its sha256"
    original, written = original_state("internimage_tiny_l"), tensors_of(tmp_path / "out")
    name = "internimage.encoder.stages.0.layers.0.layer_scale1.scale"
    assert torch.equal(written[name], original["levels.0.blocks.0.gamma1"])
    assert not any(request.endswith(".py") for request in hub.requests)


def test_publish_all(hub, small_zoo, originals, tmp_path):
    result = run("publish-all", "--org", "acme", "--from", originals, "--out", tmp_path / "out")
    assert result.exit_code == 1 and result.stderr.splitlines()[-1] == "2 published, 1 refused, 1 skipped"
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert lines["tiny"].startswith("published (") and lines["tiny_upstream"].startswith("published (")
    assert lines["absent"] == "skipped (no file absent.pth)"
    assert "wider.pth: looks like tiny" in lines["wider"]
    assert {id for _, id in hub.repos} == {"acme/tiny", "acme/tiny_upstream"}
    report = json.loads((tmp_path / "out" / "publish_report.json").read_text())
    assert {name: entry["state"] for name, entry in report.items()} == {
        "tiny": "published",
        "tiny_upstream": "published",
        "wider": "refused",
        "absent": "skipped",
    }
    assert report["tiny"]["commit"] in hub.repos["models", "acme/tiny"].commits


def test_publish_all_goes_on(hub, small_zoo, originals):
    """What is converted and published already is left as it is."""
    api = HfApi(endpoint=hub.url, token=TOKEN)
    checked = publish_all("acme", originals, dry_run=True, progress=False, api=api)
    assert checked["tiny"]["state"] == "checked" and not hub.repos
    weights = originals / "converted" / "tiny" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    first = publish_all("acme", originals, progress=False, api=api)
    commits = {id: list(repo.commits) for (_, id), repo in hub.repos.items()}
    again = publish_all("acme", originals, progress=False, api=api)
    assert first["tiny"]["state"] == "published" and again["tiny"] == first["tiny"] | {"state": "unchanged"}
    assert {id: list(repo.commits) for (_, id), repo in hub.repos.items()} == commits
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="nowhere: no such folder"):
        publish_all("acme", "nowhere")
