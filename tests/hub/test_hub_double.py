"""The Hub's double holds what the real client expects of the Hub."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from hf_models.conversion.publish.kernel import UPLOADS_KERNELS

from ..harness.hub_double import Hub
from ..harness.hub_faults import after, changed, cut, failing, wrong_length
from ..harness.hub_routes import TOKEN

WEIGHTS = bytes(range(256)) * 400


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with Hub() as hub:
        yield hub
        assert not hub.unknown


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=TOKEN)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "sub" / "model.safetensors").write_bytes(WEIGHTS)
    return folder


def download(hub, path, cache, repo_id="acme/model", **kwargs):
    return Path(hf_hub_download(repo_id, path, endpoint=hub.url, cache_dir=cache, token=TOKEN, **kwargs)).read_bytes()


def test_upload_and_download(hub, api, folder, tmp_path):
    api.create_repo("acme/model")
    api.create_repo("acme/model", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("acme/model")
    first = api.upload_folder(folder_path=folder, repo_id="acme/model").oid
    assert hub.files("acme/model")["sub/model.safetensors"] == WEIGHTS
    assert api.upload_folder(folder_path=folder, repo_id="acme/model").oid == first  # nothing new, no commit

    snapshot = snapshot_download("acme/model", endpoint=hub.url, cache_dir=tmp_path / "cache", token=TOKEN)
    assert snapshot.endswith(first)
    assert Path(snapshot, "sub", "model.safetensors").read_bytes() == WEIGHTS
    assert {file.path for file in api.list_repo_tree("acme/model")} == {".gitattributes", "README.md", "sub"}
    assert [file.lfs is None for file in api.get_paths_info("acme/model", ["README.md"])] == [True]
    assert "sub/model.safetensors" in api.list_repo_files("acme/model")
    api.delete_folder("sub", "acme/model")
    assert sorted(hub.files("acme/model")) == [".gitattributes", "README.md"]
    assert sorted(hub.files("acme/model", revision=first)) == [".gitattributes", "README.md", "sub/model.safetensors"]


@pytest.mark.skipif(not UPLOADS_KERNELS, reason="this huggingface_hub uploads no kernels")
def test_branches_tags_and_kernels(hub, api, folder):
    api.create_repo("acme/kernel", repo_type="kernel")
    api.create_branch("acme/kernel", branch="v1", repo_type="kernel")
    api.create_branch("acme/kernel", branch="v1", repo_type="kernel", exist_ok=True)
    sha = api.upload_folder(folder_path=folder, repo_id="acme/kernel", repo_type="kernel", revision="v1").oid
    api.create_tag("acme/kernel", tag="v1.0", revision="v1", repo_type="kernel")
    refs = api.list_repo_refs("acme/kernel", repo_type="kernel")
    assert {ref.name: ref.target_commit == sha for ref in refs.branches + refs.tags} == {
        "main": False,
        "v1": True,
        "v1.0": True,
    }
    assert api.kernel_info("acme/kernel", revision="v1").sha == sha
    assert "README.md" not in hub.files("acme/kernel", kind="kernels")


def test_errors(hub, api, folder, tmp_path):
    with pytest.raises(RepositoryNotFoundError):
        download(hub, "README.md", tmp_path)
    sha = hub.add("acme/model", {"README.md": b"a"})
    with pytest.raises(EntryNotFoundError):
        download(hub, "config.json", tmp_path)
    with pytest.raises(RevisionNotFoundError):
        download(hub, "README.md", tmp_path, revision="v2")
    hub.add("acme/model", {"README.md": b"b"})
    with pytest.raises(HfHubHTTPError, match="412"):
        api.upload_folder(folder_path=folder, repo_id="acme/model", parent_commit=sha)
    stranger = HfApi(endpoint=hub.url, token=False)
    with pytest.raises(HfHubHTTPError, match="401"):
        stranger.upload_folder(folder_path=folder, repo_id="acme/model")
    hub.add("acme/private", {"README.md": b"a"}, private=True)
    assert api.model_info("acme/private").private
    with pytest.raises(RepositoryNotFoundError):
        stranger.model_info("acme/private")


def test_faults(hub, folder, tmp_path):
    """The client resumes after a cut, and notices a wrong length; wrong bytes of the right length pass."""
    sha = hub.add("acme/model", {"model.safetensors": WEIGHTS})
    hub.inject("GET /storage", cut(1000), times=1)
    assert download(hub, "model.safetensors", tmp_path / "cut") == WEIGHTS
    assert sum(request.startswith("GET /storage") for request in hub.requests) == 2
    hub.inject("GET /storage", wrong_length(-5), times=1)
    with pytest.raises(OSError, match="Consistency check failed"):
        download(hub, "model.safetensors", tmp_path / "length")
    hub.inject("GET /storage", changed(lambda body: body[::-1]), times=1)
    assert download(hub, "model.safetensors", tmp_path / "changed") == WEIGHTS[::-1]
    hub.inject("HEAD /acme", failing(403), times=1)
    with pytest.raises(OSError):
        download(hub, "model.safetensors", tmp_path / "failing")
    hub.inject("HEAD .*/resolve", after(lambda: hub.add("acme/model", {"model.safetensors": b"new"})), times=1)
    assert download(hub, "model.safetensors", tmp_path / "race") == WEIGHTS
    assert download(hub, "model.safetensors", tmp_path / "race", revision=sha) == WEIGHTS
