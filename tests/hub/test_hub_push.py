"""What `hf-models push` puts on the Hub: complete, once, and never half."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification

import hf_models
from hf_models import stock_models
from hf_models.auto import FAMILIES
from hf_models.conversion.publish import push_model
from hf_models.errors import InputError
from hf_models.segmentation.registration import SEGMENTERS as HEADS

from ..harness.conversion_tester import converted
from ..harness.hub_double import Hub
from ..harness.hub_faults import after, failing
from ..harness.hub_routes import TOKEN
from ..harness.hub_tester import SEGMENTERS, TINY, tiny_folder

SOURCES = Path(hf_models.__file__).parent
SMT_CODE = {"configuration_base.py", "configuration_smt.py", "image_processing_imagenet.py"}
SMT_CODE |= {
    "errors.py",
    "execution.py",
    "fused_layers.py",
    "hub_kernels.py",
    "input_channels.py",
    "int8_linear.py",
    "int8_quantizer.py",
    "kernel_download.py",
    "kernel_layers.py",
    "kernel_places.py",
    "layers.py",
    "modeling_base.py",
    "modeling_smt.py",
    "remote_code.py",
    "saved_weights.py",
    "scale_aware_modulation.py",
    "sharding.py",
    "smt_blocks.py",
    "strided_conv.py",
    "training_layers.py",
}
OTHERS = {".gitattributes", "README.md", "config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with Hub() as hub:
        yield hub
        assert not hub.unknown


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("trained") / "smt", "smt")


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "folder")


def push(hub, folder, repo_id="acme/model", **kwargs):
    return push_model(folder, repo_id, api=HfApi(endpoint=hub.url, token=TOKEN), progress=False, **kwargs)


def commits(hub, repo_id="acme/model"):
    return list(hub.repos["models", repo_id].commits)


def test_what_is_published(hub, folder):
    (folder / "optimizer.pt").write_bytes(b"not for the Hub")
    result = push(hub, folder)
    files = hub.files("acme/model")
    assert files.keys() == SMT_CODE | OTHERS
    assert result["files"].keys() == files.keys() - {".gitattributes"}
    for name in SMT_CODE:
        assert files[name] == (SOURCES / name).read_bytes()
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert json.loads(files["config.json"])["auto_map"] == {
        "AutoConfig": "configuration_smt.SMTConfig",
        "AutoModel": "modeling_smt.SMTModel",
        "AutoModelForImageClassification": "modeling_smt.SMTForImageClassification",
        "AutoBackbone": "modeling_smt.SMTBackbone",
    }
    processor = json.loads(files["preprocessor_config.json"])
    assert processor["auto_map"] == {"AutoImageProcessor": "image_processing_imagenet.ImageNetImageProcessor"}


def test_the_card_names_the_commit(hub, folder):
    result = push(hub, folder)
    _, first, second = commits(hub)
    assert result["commit"] == first
    complete, pinned = hub.files("acme/model", revision=first), hub.files("acme/model", revision=second)
    assert {name for name in pinned if pinned[name] != complete[name]} == {"README.md"}
    card = pinned["README.md"].decode()
    assert f'model="acme/model", revision="{first}", trust_remote_code=True)' in card
    assert f'from_pretrained("acme/model", revision="{first}")' in card
    assert "path/to/this/folder" not in card
    assert 'model="acme/model", trust_remote_code=True)' in complete["README.md"].decode()


def test_a_second_push_changes_nothing(hub, folder):
    first = push(hub, folder)
    before = commits(hub)
    assert push(hub, folder) == first | {"changed": []}
    assert commits(hub) == before


def test_new_weights_replace_the_old(hub, folder, tmp_path):
    push(hub, folder)
    model = AutoModelForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.bias += 1
    shards = shutil.copytree(folder, tmp_path / "shards")
    (shards / "model.safetensors").unlink()
    model.save_pretrained(shards, max_shard_size="100KB")
    hub.add("acme/model", {"photo.jpg": b"a file of the owner"})
    result = push(hub, shards)
    files = hub.files("acme/model")
    assert "model.safetensors" in result["changed"] and "model.safetensors" not in files
    assert {"model.safetensors.index.json", "photo.jpg"} <= files.keys()
    assert f'revision="{result["commit"]}"' in files["README.md"].decode()


def test_every_kind_of_model_is_tested():
    assert {config.model_type for config, *_ in FAMILIES} == TINY.keys()
    assert {config.model_type for config, _ in HEADS} | {"upernet", "mask2former"} == SEGMENTERS.keys()


@pytest.mark.parametrize("name", [*TINY, *SEGMENTERS])
def test_the_code_of_every_model(hub, name, tmp_path):
    """Complete: every file that another one imports is there; and ours, byte for byte."""
    push(hub, tiny_folder(tmp_path / name, name))
    code = {path: data for path, data in hub.files("acme/model").items() if path.endswith(".py")}
    for path, data in code.items():
        assert data == (SOURCES / path).read_bytes()
        imported = re.findall(r"^\s*from \.(\w+) import", data.decode(), re.MULTILINE)
        assert {f"{module}.py" for module in imported} <= code.keys()
    auto_map = json.loads(hub.files("acme/model")["config.json"])["auto_map"]
    for reference in auto_map.values():
        module, class_name = reference.split(".")
        source = code[f"{module}.py"].decode()
        assert f"class {class_name}(" in source or issubclass(
            getattr(stock_models, class_name), getattr(transformers, class_name.removeprefix("Hub"))
        )


def test_converted_folder(hub, tmp_path):
    """It is the repository already, but for the card; damaged, it is not published."""
    _, folder, _ = converted(tmp_path)
    push(hub, folder)
    local = {path.name: path.read_bytes() for path in folder.iterdir()}
    files = hub.files("acme/model")
    assert files.keys() - {".gitattributes"} == local.keys()
    assert [name for name in local if files[name] != local[name]] == ["README.md"]
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors")
    with pytest.raises(InputError, match="changed since the conversion"):
        push(hub, folder, "acme/damaged")
    assert ("models", "acme/damaged") not in hub.repos


def test_private_and_branch(hub, folder):
    push(hub, folder, "acme/private", private=True)
    assert hub.repos["models", "acme/private"].private
    push(hub, folder, revision="trial")
    assert hub.files("acme/model").keys() == {".gitattributes"}
    assert "model.safetensors" in hub.files("acme/model", revision="trial")
    with pytest.raises(InputError, match="acme/model: exists and is public"):
        push(hub, folder, private=True)


def test_dry_run_asks_nothing(hub, folder):
    result = push(hub, folder, dry_run=True)
    assert result["commit"] is None and "modeling_smt.py" in result["files"]
    assert not hub.requests


def break_config(folder):
    (folder / "config.json").write_text('{"model_type": "vit"}')


def break_values(folder):
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][0] = torch.nan
    save_file(weights, folder / "model.safetensors")


def break_names(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (break_config, "model_type 'vit' is none of this package's"),
        (break_values, r"classifier\.bias: 1 of 10 values are NaN"),
        (break_names, r"tensors missing or superfluous for its config: classifier\.bias"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), r"preprocessor_config\.json: no such file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds neither model.safetensors"),
    ],
)
def test_a_bad_folder_is_refused(hub, folder, damage, reason):
    damage(folder)
    with pytest.raises(InputError, match=reason):
        push(hub, folder)
    assert not hub.requests


def test_what_the_hub_refuses(hub, folder):
    with pytest.raises(InputError, match="--repo: expected ORG/NAME, got model"):
        push(hub, folder, "model")
    with pytest.raises(InputError, match=r"acme/model: the Hub refused .*401.* Log in with `hf auth login`"):
        push_model(folder, "acme/model", api=HfApi(endpoint=hub.url, token="wrong"), progress=False)
    hub.inject("POST .*/preupload", after(lambda: hub.add("acme/model", {"a": b"b"})), times=1)
    with pytest.raises(InputError, match=r"acme/model: the Hub refused .*412.*changed at the same time"):
        push(hub, folder)
    assert hub.files("acme/model").keys() == {".gitattributes", "a"}


def test_stopped_anywhere_it_is_nothing_or_complete(hub, folder):
    """Every request in turn is refused; run again, the push ends with the same files."""
    push(hub, folder)
    number, reference = len(hub.requests), hub.files("acme/model")
    states = []
    for passing in range(number):
        with Hub() as other:
            other.inject("", lambda request, respond: respond(), times=passing)
            other.inject("", failing(403), times=1)
            with pytest.raises(InputError, match=r"^acme/model: .* Run the command again|may not write"):
                push(other, folder)
            if repo := other.repos.get(("models", "acme/model")):
                assert other.files("acme/model").keys() in ({".gitattributes"}, reference.keys())
                states.append(len(repo.commits))
            push(other, folder)
            assert other.files("acme/model") == reference
    assert set(states) == {1, 2}, "stopped before and after the first of the two commits"
