"""Where checkpoints come from: upstream's own format, the Hub, published names and hashes."""

import dataclasses
import json

import pytest
import torch
from transformers import AutoConfig, AutoImageProcessor

from hf_models import zoo
from hf_models.conversion import convert, verify
from hf_models.conversion.report import published_sha256
from hf_models.errors import InputError
from hf_models.zoo import catalogue

from ..harness.conversion_tester import (
    original_state,
    read_manifest,
    tensors_of,
    write_original,
    write_upstream,
)


@pytest.fixture
def tiny_zoo(monkeypatch):
    """A published checkpoint that is small: `internimage_tiny_l`, and a wider one beside it."""
    published = dataclasses.replace(
        zoo.find_checkpoint("internimage_l_22kto1k_384"),
        name="internimage_tiny_l",
        file=None,
        aliases=["tiny_alias"],
        hub_repo="OpenGVLab/internimage_tiny",
        num_labels=10,
        label_set=None,
        config_kwargs={
            "hidden_sizes": [16, 32, 64, 128],
            "depths": [1, 1, 2, 1],
            "groups": [2, 4, 8, 16],
            "offset_scale": 2.0,
            "post_norm": True,
            "layer_scale_init_value": 1e-5,
        },
    )
    wider = dataclasses.replace(
        published,
        name="wider",
        file=None,
        aliases=[],
        hub_repo=None,
        config_kwargs=published.config_kwargs | {"hidden_sizes": [32, 64, 128, 256]},
    )
    checkpoints = (*catalogue._checkpoints(), published, wider)
    monkeypatch.setattr(catalogue, "_checkpoints", lambda: checkpoints)
    return published


@pytest.mark.parametrize(("shards", "suffix"), [(1, "safetensors"), (3, "safetensors"), (2, "bin")])
def test_upstream_folder(shards, suffix, tmp_path):
    source = write_upstream(tmp_path / "upstream", shards=shards, suffix=suffix)
    report = convert(source, tmp_path / "out", progress=False)
    assert len(report["source"]["files"]) == shards and report["name"] is None
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert processor.size["shortest_edge"] == 96 and processor.crop_size["height"] == 80
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.offset_scale == 2.0 and config.post_norm and config.num_labels == 10
    original, written = original_state("internimage_tiny_l"), tensors_of(tmp_path / "out")
    assert torch.equal(
        written["internimage.encoder.stages.2.layers.1.layer_scale2.scale"], original["levels.2.blocks.1.gamma2"]
    )
    verify(tmp_path / "out", source=source, progress=False)


def test_hub_id_and_hub_file(tiny_zoo, tmp_path, monkeypatch):
    """Downloads go through huggingface_hub; the revision is recorded, the blob's name is its published sha256."""
    snapshot = tmp_path / "models--x" / "snapshots" / "abc123"
    snapshot.parent.mkdir(parents=True)
    write_upstream(snapshot)
    monkeypatch.setattr(
        "hf_models.conversion.reading.source.snapshot_download", lambda repo_id, allow_patterns: str(snapshot)
    )
    report = convert("OpenGVLab/internimage_tiny", tmp_path / "by_id", progress=False)
    assert report["name"] == "internimage_tiny_l" and report["source"]["revision"] == "abc123"

    asked = {}

    def download(repo_id, filename):
        asked.update(repo_id=repo_id, filename=filename)
        return str(snapshot / "model.safetensors")

    monkeypatch.setattr("hf_models.conversion.reading.source.hf_hub_download", download)
    convert("hf://OpenGVLab/InternImage/sub/internimage_tiny_l.pth", tmp_path / "by_file", progress=False)
    assert asked == {"repo_id": "OpenGVLab/InternImage", "filename": "sub/internimage_tiny_l.pth"}


def test_upstream_config_is_held_against_the_published_one(tiny_zoo, tmp_path):
    """offset_scale cannot be seen in the weights: a wrong one would load and quietly be worse."""
    source = write_upstream(tmp_path / "tiny_alias")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"offset_scale": 1.0}))
    with pytest.raises(InputError, match=r"offset_scale 1\.0, the published checkpoint has 2\.0"):
        convert(source, tmp_path / "out", progress=False)


def test_published_name_from_the_file_or_given(tiny_zoo, tmp_path):
    source, _ = write_original(tmp_path, read_manifest("internimage_tiny_l"), name="tiny_alias")
    assert convert(source, tmp_path / "inferred", progress=False)["name"] == "internimage_tiny_l"
    source = source.rename(tmp_path / "other.pth")
    assert (
        convert(source, tmp_path / "given", name="internimage_tiny_l", progress=False)["name"] == "internimage_tiny_l"
    )
    assert AutoConfig.from_pretrained(tmp_path / "given").offset_scale == 2.0
    assert AutoImageProcessor.from_pretrained(tmp_path / "given").crop_size["height"] == 384
    with pytest.raises(
        InputError, match=r"looks like internimage_tiny_l \(channels \[16, .*not like wider \(\[32, .*--name"
    ):
        convert(source, tmp_path / "wrong", name="wider", progress=False)
    with pytest.raises(InputError, match="Did you mean --name internimage_tiny_l"):
        convert(source, tmp_path / "nameless", progress=False)


def test_published_sha256(tmp_path):
    """Eight digits at the end of a name are the publisher's sha256, as PyTorch and OpenMMLab write it."""
    manifest = read_manifest("replknet_31_like")
    source, config = write_original(tmp_path, manifest, name="replknet-01234567")
    with pytest.raises(InputError, match="is not the published 01234567"):
        convert(source, tmp_path / "out", original_config=config, progress=False)
    report = convert(source, tmp_path / "out", original_config=config, allow_unknown=True, progress=False)
    assert report["source"]["files"][0]["verified"] is False
    right = source.rename(tmp_path / f"replknet-{report['source']['files'][0]['sha256'][:8]}.pth")
    report = convert(right, tmp_path / "right", original_config=config, progress=False)
    assert report["source"]["files"][0]["verified"] is True


def test_the_hub_names_a_file_by_its_sha256(tmp_path):
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(b"content")
    (tmp_path / "model.safetensors").symlink_to(blob)
    assert published_sha256(tmp_path / "model.safetensors") == blob.name
    assert published_sha256(tmp_path / "internimage_t_1k_224.pth") is None
