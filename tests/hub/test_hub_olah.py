"""What is published, read through olah (https://github.com/vtuber-plan/olah): a mirror of the Hub by other people.

The double of the Hub and this package's tests have the same author; olah has another. It serves git repositories,
takes no uploads and knows no kernels. `pip install olah`, in an environment of its own, and put its `olah-cli` on the
PATH.
"""

import shutil
import socket
import subprocess
import time

import pytest
import torch
from huggingface_hub import HfApi, constants

from hf_models import hub_kernels
from hf_models.conversion.publish import push_model

from ..harness.hub_double import Hub
from ..harness.hub_routes import TOKEN
from ..harness.hub_tester import SEGMENTERS, TINY, auto_classes, backbone_case, local_outputs, run_client, tiny_folder

NAMES = [*TINY, *SEGMENTERS]
CONFIG = """
[basic]
mirrors-path = ["{mirrors}"]
[accessibility]
offline = true
"""
pytestmark = pytest.mark.skipif(not shutil.which("olah-cli"), reason="olah is not installed: no olah-cli on the PATH")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Small models of every kind; the reference computes them, on one thread."""
    monkeypatch.setenv("HF_MODELS_KERNELS", "off")
    monkeypatch.setattr(hub_kernels, "_modules", {})
    hub_kernels._choose.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {name: tiny_folder(tmp_path / name, name) for name in NAMES}
    torch.set_num_threads(threads)
    hub_kernels._choose.cache_clear()


@pytest.fixture
def repositories(folders, tmp_path, monkeypatch):
    """What a push publishes, as git repositories in the layout of olah; name -> commit."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    commits = {}
    with Hub() as hub:
        for name, folder in folders.items():
            push_model(folder, f"acme/{name}", api=HfApi(endpoint=hub.url, token=TOKEN), progress=False)
            repository = tmp_path / "mirrors" / "models" / "acme" / name
            repository.mkdir(parents=True)
            for path, data in hub.files(f"acme/{name}").items():
                if path != ".gitattributes":  # the weights lie in git itself, not in LFS
                    (repository / path).write_bytes(data)
            git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-C", str(repository)]
            for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "publish"]):
                subprocess.run([*git, *command], check=True)
            found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
            commits[name] = found.stdout.strip()
    return commits


@pytest.fixture
def olah(repositories, tmp_path):
    """The address of olah."""
    (tmp_path / "olah.toml").write_text(CONFIG.format(mirrors=tmp_path / "mirrors"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["olah-cli", "--config", "olah.toml", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--repos-path", "repos", "--log-path", "logs"]
    with (
        (tmp_path / "olah.log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log) as it,
    ):
        for _ in range(300):
            with socket.socket() as probe:
                if it.poll() is not None or probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        assert it.poll() is None, (tmp_path / "olah.log").read_text()[-2000:]
        yield f"http://127.0.0.1:{port}"
        it.terminate()


def test_every_class_by_id(folders, repositories, olah, tmp_path):
    environment = {"HF_ENDPOINT": olah, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    cases, expected = [], {}
    for name, folder in folders.items():
        kwargs = {"trust_remote_code": True, "revision": repositories[name]}
        for auto_class in auto_classes(name):
            case = {"name": f"{name}/{auto_class}", "class": auto_class, "id": f"acme/{name}", "kwargs": kwargs}
            # AutoBackbone asks whether the repository exists in a way that olah does not answer
            backbone = auto_class == "AutoBackbone"
            cases.append(backbone_case(name, f"acme/{name}", revision=repositories[name]) if backbone else case)
        expected |= {f"{name}/{key}": value for key, value in local_outputs(name, folder).items()}
    told, outputs = run_client(tmp_path / "client", environment, cases, absent=["hf_models", "kernels"])
    assert outputs.keys() == expected.keys()
    for key, value in outputs.items():
        assert torch.equal(value, expected[key]), key
    for result in told["results"]:
        missing = result["problems"].pop("missing_keys", [])
        assert all(name.startswith("hidden_states_norms.") for name in missing), "which only ConvNext's backbones have"
        assert result["problems"].keys() <= {"unexpected_keys"}
    assert all(result["module"].startswith("transformers_modules.acme.") for result in told["results"])
