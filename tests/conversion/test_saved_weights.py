"""A folder holds one set of weights: ours never leave two, and two are told before one of them is loaded."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    UperNetForSemanticSegmentation,
)
from transformers.utils import logging

from hf_models.conversion import convert, verify
from hf_models.conversion.publish import push_model
from hf_models.errors import InputError
from hf_models.inference.loading import load_model
from hf_models.segmentation import load_segmenter

from ..harness.conversion_tester import converted, write_upstream
from ..harness.hub_tester import tiny_folder, tiny_model

SHARDS = {"max_shard_size": "100KB"}
NAMES = ["smt", "segformer_head", "aligned_upernet"]


def forms(folder):
    """The sets of weights in a folder."""
    found = {"whole"} if (folder / "model.safetensors").is_file() else set()
    found |= {"index"} if (folder / "model.safetensors.index.json").is_file() else set()
    return found | ({"shards"} if list(folder.glob("model-*.safetensors")) else set())


def load(folder, name):
    auto_class = AutoModelForImageClassification if name == "smt" else AutoModelForSemanticSegmentation
    return auto_class.from_pretrained(folder)


@pytest.fixture
def both(tmp_path):
    """New weights, in shards, beside old ones; and a bias that tells them apart."""
    folder = tiny_folder(tmp_path / "both", "smt")
    new = tiny_model("smt")
    with torch.no_grad():
        new.classifier.bias += 1
    old = (folder / "model.safetensors").read_bytes()
    new.save_pretrained(folder, **SHARDS)
    (folder / "model.safetensors").write_bytes(old)
    assert forms(folder) == {"whole", "index", "shards"}
    return folder, new


@pytest.mark.parametrize("name", NAMES)
def test_saving_leaves_one_set(name, tmp_path):
    model = tiny_model(name)
    bias = next(parameter for key, parameter in model.named_parameters() if key.endswith("classifier.bias"))
    for step, sharded in enumerate((False, True, True, False, False, True)):
        with torch.no_grad():
            bias.fill_(step)
        model.save_pretrained(tmp_path, **(SHARDS if sharded else {}))
        assert forms(tmp_path) == ({"index", "shards"} if sharded else {"whole"})
        loaded = dict(load(tmp_path, name).named_parameters())
        assert all(torch.equal(loaded[key], value) for key, value in model.named_parameters())


def test_what_saving_leaves_alone(tmp_path):
    """Other files, other variants, and everything where nothing was written."""
    model = tiny_model("smt")
    model.save_pretrained(tmp_path)
    (tmp_path / "optimizer.pt").write_bytes(b"mine")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"mine")
    model.save_pretrained(tmp_path, variant="half", **SHARDS)
    assert forms(tmp_path) == {"whole"} and list(tmp_path.glob("model.half-*"))
    before = (tmp_path / "model.safetensors").read_bytes()
    model.save_pretrained(tmp_path, is_main_process=False, **SHARDS)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    model.save_pretrained(tmp_path, **SHARDS)
    assert forms(tmp_path) == {"index", "shards"}
    assert {"optimizer.pt", "adapter_model.safetensors"} <= {path.name for path in tmp_path.iterdir()}


def test_two_sets_are_told_before_loading(both, caplog):
    folder, new = both
    told = f"{folder}: holds model.safetensors, and all shards of model.safetensors.index.json as well; "
    for refuse in (
        lambda: load_model(folder, AutoModelForImageClassification),
        lambda: push_model(folder, "acme/model", dry_run=True, progress=False),
    ):
        with pytest.raises(InputError) as caught:
            refuse()
        assert str(caught.value).startswith(told) and "Delete the one that is not meant" in str(caught.value)
    logging.enable_propagation()
    try:
        load(folder, "smt")
    finally:
        logging.disable_propagation()
    assert [record for record in caplog.records if told in record.getMessage()]
    (folder / "model.safetensors").unlink()  # what the message advises
    assert torch.equal(load_model(folder, AutoModelForImageClassification)[1].classifier.bias, new.classifier.bias)


def test_an_index_without_shards_is_no_set(both):
    """transformers loads the whole weights, and so does all of this package."""
    folder, _ = both
    for shard in folder.glob("model-*.safetensors"):
        shard.unlink()
    bias = load_file(folder / "model.safetensors")["classifier.bias"]
    assert torch.equal(load_model(folder, AutoModelForImageClassification)[1].classifier.bias, bias)
    files = push_model(folder, "acme/model", dry_run=True, progress=False)["files"]
    assert "model.safetensors" in files and "model.safetensors.index.json" not in files


def test_models_of_transformers_are_refused_too(tmp_path):
    """Its own classes leave both."""
    model = tiny_model("upernet")
    assert type(model) is UperNetForSemanticSegmentation
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, **SHARDS)
    assert forms(tmp_path) == {"whole", "index", "shards"}
    with pytest.raises(InputError, match=r"holds model.safetensors, and all shards"):
        load_segmenter(tmp_path)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_sources_of_conversions(suffix, tmp_path):
    whole = write_upstream(tmp_path / "whole", suffix=suffix)
    mixed = write_upstream(tmp_path / "mixed", shards=2, suffix=suffix)
    (file,) = whole.glob(f"*.{suffix}")
    shutil.copy(file, mixed)
    with pytest.raises(InputError, match=f"holds {file.name}, and all shards of {file.name}.index.json"):
        convert(mixed, tmp_path / "out", progress=False)
    next(mixed.glob(f"*-00001-of-00002.{suffix}")).unlink()
    assert convert(mixed, tmp_path / "out", progress=False)["source"]["files"][0]["name"] == file.name


def test_verify_and_conversion(tmp_path):
    _, output, _ = converted(tmp_path, max_shard_size="200KB")
    weight_map = json.loads((output / "model.safetensors.index.json").read_text())["weight_map"]
    shutil.copy(output / weight_map["classifier.bias"], output / "model.safetensors")
    with pytest.raises(InputError, match=r"holds model.safetensors, and all shards"):
        verify(output, progress=False)
    shutil.rmtree(output)
    for sharded in ({}, {"max_shard_size": "200KB"}, {}):
        shutil.rmtree(output.parent / "original.pth", ignore_errors=True)
        converted(tmp_path, overwrite=True, **sharded)
        assert forms(output) == ({"index", "shards"} if sharded else {"whole"})
