"""A kernel on the Hub: pushed, fetched with the user's word, refused without it or when it is not what it says."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from huggingface_hub import HfApi, constants
from kernels._rust import Build

from hf_models import hub_kernels, kernel_download
from hf_models.conversion.publish import push_kernel, push_model
from hf_models.conversion.publish.kernel import UPLOADS_KERNELS
from hf_models.errors import InputError
from hf_models.hub_kernels import KERNELS

from ..harness.hub_double import Hub
from ..harness.hub_routes import TOKEN
from ..harness.hub_tester import kernel_arguments, local_outputs, run_client, tiny_folder
from ..harness.kernel_builder import KERNELS_SRC, built_kernel

NAME = "deformable-conv"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub that this process talks to, with an empty cache; nothing decided about kernels yet."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("HF_MODELS_KERNELS", "HF_MODELS_TRUST_KERNELS", "LOCAL_KERNELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_MODELS_KERNELS_DIR", str(tmp_path / "builds"))
    monkeypatch.setattr("kernels.resolver.CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("KERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_kernels, "_modules", {})
    hub_kernels._choose.cache_clear()
    with Hub() as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub
    hub_kernels._choose.cache_clear()


@pytest.fixture
def builds(tmp_path):
    """A build of this machine, where `hf-models kernels build` puts it."""
    source = built_kernel(NAME)
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(source / "build", tmp_path / "builds" / NAME / "build", ignore=ignored)
    return tmp_path / "builds" / NAME / "build"


def push(hub, repo_id=f"acme/{NAME}", **kwargs):
    if not UPLOADS_KERNELS:
        pytest.skip("this huggingface_hub uploads no kernels")
    return push_kernel(NAME, repo_id, api=HfApi(endpoint=hub.url, token=TOKEN), **kwargs)


def chosen(monkeypatch, commit, repo_id=f"acme/{NAME}"):
    """What is decided on a machine without builds that trusts this commit."""
    monkeypatch.setenv("HF_MODELS_TRUST_KERNELS", f"{repo_id}@{commit}")
    hub_kernels._choose.cache_clear()
    return hub_kernels._choose(NAME, "cpu")


def test_an_old_client_is_told_before_anything_is_made(hub, builds, monkeypatch):
    monkeypatch.setattr("hf_models.conversion.publish.kernel.UPLOADS_KERNELS", False)
    with pytest.raises(InputError, match=r"uploads no kernels. Run `pip install 'huggingface_hub>=2.3'`"):
        push_kernel(NAME, f"acme/{NAME}", api=HfApi(endpoint=hub.url, token=TOKEN))
    with pytest.raises(KeyError):
        hub.files(f"acme/{NAME}", "kernels")


def test_push(hub, builds):
    hub.add(f"acme/{NAME}", {"build/torch-stable-abi211-cu130-x86_64-linux/metadata.json": b"{}"}, "kernels", "v1")
    variant = next(builds.iterdir())
    hub.add(f"acme/{NAME}", {f"build/{variant.name}/old.abi3.so": b"an older build"}, "kernels", "v1")
    hub.add(f"acme/{NAME}", {".gitattributes": b"", "deformable_conv_cpu/old.h": b"an older source"}, "kernels")
    result = push(hub)
    files = hub.files(f"acme/{NAME}", "kernels", "v1")
    other = {"build/torch-stable-abi211-cu130-x86_64-linux/metadata.json"}
    assert files.keys() == other | {f"build/{variant.name}/{path.name}" for path in variant.iterdir()}
    for path in variant.iterdir():
        assert files[f"build/{variant.name}/{path.name}"] == path.read_bytes()
    sources = hub.files(f"acme/{NAME}", "kernels")
    for path, source in (("README.md", "CARD.md"), ("ALGORITHM.md", "ALGORITHM.md"), ("build.toml", "build.toml")):
        assert sources[path] == (KERNELS_SRC / NAME / source).read_bytes()
    assert sources["common/types.h"] == (KERNELS_SRC / "common" / "types.h").read_bytes()
    assert "deformable_conv_cpu/old.h" not in sources
    assert sources[".gitattributes"] == b""
    assert hub.repos["kernels", f"acme/{NAME}"].branches["v1"] == result["commit"]
    before = dict(hub.repos["kernels", f"acme/{NAME}"].branches)
    assert push(hub) == result | {"changed": []}
    assert hub.repos["kernels", f"acme/{NAME}"].branches == before


@pytest.mark.parametrize("name", KERNELS)
def test_published_sources_need_nothing_else(hub, monkeypatch, tmp_path, name):
    """A kernel's `main` branch builds in a folder of its own, to what this repository builds from its own sources."""
    (variant,) = (built_kernel(name) / "build").glob("torch*-cpu-*")
    monkeypatch.setenv("HF_MODELS_KERNELS_DIR", str(KERNELS_SRC))
    push_kernel(name, f"acme/{name}", api=HfApi(endpoint=hub.url, token=TOKEN))
    for path, content in hub.files(f"acme/{name}", "kernels").items():
        file = tmp_path / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    Build.open(tmp_path / name)  # kernel-builder reads it
    shutil.copyfile(KERNELS_SRC / "build.py", tmp_path / "build.py")
    compiler = tmp_path / "g++"  # in a hurry
    compiler.write_text(f'#!/bin/sh\nexec {os.environ.get("CXX", "g++")} "$@" -O0\n')
    compiler.chmod(0o755)
    environment = os.environ | {"CXX": str(compiler)}
    subprocess.run([sys.executable, "build.py", name], cwd=tmp_path, env=environment, check=True)
    (alone,) = (tmp_path / name / "build").glob("*")
    assert {path.name for path in alone.iterdir()} == {path.name for path in variant.iterdir()} - {"__pycache__"}
    code = "import kernels, pathlib, sys; print(kernels.get_local_kernel(pathlib.Path(sys.argv[1])).cpu_path())"
    subprocess.run([sys.executable, "-c", code, alone], check=True)


def test_push_is_refused(hub, tmp_path, builds):
    with pytest.raises(InputError, match=r"large-kernel: no such kernel\. There are: deformable-conv"):
        push_kernel("large-kernel", "acme/large-kernel")
    with pytest.raises(InputError, match=f"--repo acme/other: models look for ORG/{NAME}"):
        push(hub, "acme/other")
    library = next(builds.glob("*/*.so"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_models.kernels_src.build.MANYLINUX", "manylinux_2_5")
        with pytest.raises(InputError, match=f"{library.name}: .* lack .*Build it on an older system"):
            push(hub)
        patch.setitem(sys.modules, "kernel_abi_check", None)
        with pytest.raises(InputError, match="kernel-abi-check: not installed"):
            push(hub)
    library.write_bytes(library.read_bytes() + b"x")
    with pytest.raises(InputError, match=f"{library.name} is not the file of the kernel's digest"):
        push(hub)
    shutil.rmtree(builds)
    with pytest.raises(InputError, match="holds no build"):
        push(hub)
    assert not hub.requests


def test_nothing_is_fetched_without_the_users_word(hub, builds, monkeypatch):
    push(hub)
    shutil.rmtree(builds)
    builds.mkdir()
    asked = len(hub.requests)
    module, status = hub_kernels._choose(NAME, "cpu")
    assert module is None and "HF_MODELS_TRUST_KERNELS names no repository of it" in status.reason
    module, status = chosen(monkeypatch, "0" * 40, "acme/other")
    assert module is None and "HF_MODELS_TRUST_KERNELS names no repository of it" in status.reason
    assert len(hub.requests) == asked
    for word in (f"acme/{NAME}", f"acme/{NAME}@main", "1"):
        monkeypatch.setenv("HF_MODELS_TRUST_KERNELS", word)
        hub_kernels._choose.cache_clear()
        with pytest.raises(InputError, match="expected ORG/NAME@COMMIT with 40 digits"):
            hub_kernels._choose(NAME, "cpu")
    assert len(hub.requests) == asked


@pytest.mark.parametrize("damage", ["changed", "added", "missing", "no digest", "depends"])
def test_what_is_not_as_its_digest_says_is_refused(hub, builds, monkeypatch, damage):
    """Before any of its code runs; the reference does the work, or nothing with `require`."""
    push(hub)
    shutil.rmtree(builds.parent)
    files = hub.files(f"acme/{NAME}", "kernels", "v1")
    variant = next(path.rpartition("/")[0] for path in files if path.endswith("metadata.json"))
    metadata = json.loads(files[f"{variant}/metadata.json"])
    hub.add("acme/other", files, "kernels", "v1")
    bomb = b"raise SystemExit('this must not run')\n"
    if damage == "missing":
        api, where = HfApi(endpoint=hub.url, token=TOKEN), {"repo_type": "kernel", "revision": "v1"}
        api.delete_file(f"{variant}/layers.py", f"acme/{NAME}", **where)
        commit = hub.repos["kernels", f"acme/{NAME}"].branches["v1"]
    else:
        depends = metadata | {"kernel-depends": [{"repo-id": "acme/other", "version": 1}]}
        del metadata["digest"]
        files = {
            "depends": {f"{variant}/metadata.json": json.dumps(depends).encode()},
            "changed": {f"{variant}/__init__.py": bomb},
            "added": {f"{variant}/sitecustomize.py": bomb},
            "no digest": {f"{variant}/metadata.json": json.dumps(metadata).encode(), f"{variant}/__init__.py": bomb},
        }[damage]
        commit = hub.add(f"acme/{NAME}", files, "kernels", "v1")
    module, status = chosen(monkeypatch, commit)
    assert module is None and status.chosen == "reference"
    assert "Refused." in status.reason and "\n" not in status.reason
    monkeypatch.setenv("HF_MODELS_KERNELS", "require")
    with pytest.raises(InputError, match=rf"{NAME}: HF_MODELS_KERNELS is require, but .*Refused\."):
        chosen(monkeypatch, commit)


def test_reasons_of_the_hub(hub, monkeypatch):
    module, status = chosen(monkeypatch, "0" * 40)
    assert module is None and "Repository Not Found" in status.reason and "\n" not in status.reason
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        module, status = chosen(monkeypatch, "0" * 40)
    assert module is None and "on the Hub: not in the cache" in status.reason
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(4)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(kernel_download, "HUB_SECONDS", 0.2)
        module, status = chosen(monkeypatch, "0" * 40)
    assert module is None and "the Hub did not answer within 0.2 s" in status.reason


def test_a_model_without_the_package_takes_it(hub, builds, tmp_path, monkeypatch):
    """The whole way, in a process of its own: code and kernel from the Hub, the values of the local build."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tiny_folder(tmp_path / "model", "internimage")
    push_model(folder, "acme/internimage", api=HfApi(endpoint=hub.url, token=TOKEN), progress=False)
    commit = push(hub)["commit"]
    monkeypatch.setenv("HF_MODELS_KERNELS_DIR", str(KERNELS_SRC))  # one process may load a build from one place only
    expected = local_outputs("internimage", folder)["AutoModelForImageClassification/logits"]
    module, status = hub_kernels._choose(NAME, "cpu")
    assert status.chosen == "local"
    arguments = kernel_arguments()
    alone = module.deformable_aggregate(*arguments.values(), kernel_size=3, padding=1)
    torch.set_num_threads(threads)
    environment = hub.environment(tmp_path / "home") | {
        "HF_MODELS_KERNELS": "auto",  # this one kernel is published
        "HF_MODELS_KERNELS_DIR": str(tmp_path / "none"),
        "HF_MODELS_TRUST_KERNELS": f"acme/{NAME}@{commit}",
    }
    case = {"name": "model", "class": "AutoModelForImageClassification", "id": "acme/internimage"}
    case |= {"kwargs": {"trust_remote_code": True}}
    kernel = {"id": f"acme/{NAME}", "revision": commit}
    told, outputs = run_client(
        tmp_path / "client", environment, [case], absent=["hf_models"], kernels=True, get_kernel=kernel
    )
    # to rounding: here other kernels may run beside this one
    torch.testing.assert_close(outputs["model/logits"], expected)
    assert torch.equal(outputs["kernel"], alone)
    assert told["kernels"][0] == f"from acme/{NAME}@{commit} on the Hub"
    assert told["offline"] == told["kernels"], "the second time from the cache"
