"""Conversion: every published name and config, and what users do with the result."""

import gzip
import json
from math import prod
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

from hf_models import zoo
from hf_models.auto import FAMILIES as REGISTERED
from hf_models.conversion import convert, verify
from hf_models.conversion.mapping.facts import differences
from hf_models.conversion.mapping.key_map import Rule, rename
from hf_models.conversion.registry import FAMILIES
from hf_models.conversion.writing.expected import model_tensors
from hf_models.errors import InputError
from hf_models.remote_code import code_files

from ..harness.conversion_tester import (
    TINY,
    converted,
    original_state,
    read_manifest,
    tensors_of,
    write_original,
)

PUBLISHED = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "fixtures/published_manifests.json.gz").read_bytes())
)
BACKBONES = {config.model_type: backbone for config, _, _, backbone in REGISTERED}


def test_rules_apply_in_order_and_keep_what_they_do_not_match():
    rules = (Rule(r"^a\.(\d+)", lambda m: f"b.{int(m[1]) + 1}"), Rule(r"^b\.", "c."), Rule("z", "y", optional=True))
    assert rename(["a.0.w", "other"], rules) == {"a.0.w": "c.1.w", "other": "other"}


def test_a_rule_without_a_match_is_named():
    with pytest.raises(InputError, match=r"rule 2 \(\^levels\) matched no key"):
        rename(["a.w"], (Rule("^a", "b"), Rule("^levels", "stages")))


def test_two_keys_may_not_become_one():
    with pytest.raises(InputError, match="keys a and b both become b"):
        rename(["a", "b"], (Rule("^a$", "b"),))


@pytest.mark.parametrize("published", PUBLISHED)
def test_every_published_checkpoint_maps_exactly_onto_its_model(published):
    """All names, shapes and the number of parameters; the arguments of the originals agree with the zoo."""
    entry, model = PUBLISHED[published], zoo.find_checkpoint(published.removesuffix(" merged"))
    family = FAMILIES[model.family]
    renamed = family.rename(entry["tensors"])
    shapes = {new: tuple(entry["tensors"][old]) for old, new in renamed.items()}
    shown = family.facts_of_weights(shapes)
    assert all(value is not None for name, value in shown.items() if name in ("num_classes", "channels", "depths"))
    from_original, from_zoo = family.config_from_original(entry["config"], shown), model.config()
    for config in (from_original, from_zoo):
        family.adopt(config, shown)
        assert differences(shown, family.facts_of_config(config)) == {}
        expected, buffers = model_tensors(family.model_class, config)
        assert {name: tuple(tensor.shape) for name, tensor in expected.items()} == {
            family.full_name(name): shape for name, shape in shapes.items()
        }
        assert sum(prod(t.shape) for name, t in expected.items() if name not in buffers) == entry["parameters"]
    # what weights cannot show
    for field in ("offset_scale", "intermediate_norm_layers", "post_norm", "num_attention_heads", "stage_types"):
        theirs, ours = getattr(from_original, field, None), getattr(from_zoo, field, None)
        assert (list(theirs) if isinstance(theirs, list | tuple) else theirs) == (
            list(ours) if isinstance(ours, list | tuple) else ours
        )


def test_layer_scale_follows_the_weights_where_the_arguments_leave_it_open(tmp_path):
    manifest = read_manifest("internimage_tiny_l")
    del manifest["config"]["layer_scale"]
    source, config = write_original(tmp_path, manifest)
    convert(source, tmp_path / "out", original_config=config, progress=False)
    assert AutoConfig.from_pretrained(tmp_path / "out").layer_scale_init_value == 1.0


@pytest.mark.parametrize("name", TINY)
def test_every_class_loads_the_folder(name, tmp_path):
    """Nothing missing, nothing unexpected but the head; the 10 classes stay."""
    _, output, report = converted(tmp_path, name)
    family = read_manifest(name)["config"]["family"]
    model, info = AutoModelForImageClassification.from_pretrained(output, output_loading_info=True)
    assert not any(info.values())
    assert model.config.num_labels == 10 and model.config.architectures == [type(model).__name__]
    assert report["parameters"] == model.num_parameters()
    _, info = AutoModel.from_pretrained(output, output_loading_info=True)
    assert not info["missing_keys"] and set(info["unexpected_keys"]) == {"classifier.weight", "classifier.bias"}
    _, info = BACKBONES[family].from_pretrained(output, output_loading_info=True)
    assert not any(info.values())
    AutoImageProcessor.from_pretrained(output)
    assert verify(output, progress=False)["tensors"] == len(report["written"])


@pytest.mark.parametrize(
    "name", ["internimage_tiny_t", "flash_internimage_tiny_b", "smt_tiny_like", "replknet_31_like"]
)
def test_fine_tuning_with_another_number_of_classes(name, tmp_path):
    _, output, _ = converted(tmp_path, name)
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_pretrained(output, num_labels=7, ignore_mismatched_sizes=True).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = {"pixel_values": torch.randn(4, 3, 64, 64), "labels": torch.tensor([0, 1, 2, 6])}
    losses = []
    for _ in range(2):
        torch.manual_seed(0)  # the same stochastic depth
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


def test_the_folder_is_complete_and_the_report_tells_all(tmp_path):
    source, output, report = converted(tmp_path)
    files = ["README.md", "config.json", "conversion_report.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(path.name for path in output.iterdir() if path.suffix != ".py") == files
    code = {path.name for path in code_files(json.loads((output / "config.json").read_text())["auto_map"])}
    assert {path.name for path in output.glob("*.py")} == code | {"image_processing_imagenet.py"}
    assert json.loads((output / "conversion_report.json").read_text()) == report
    assert report["source"]["given"] == source.name, "no local path may reach the Hub"
    assert str(tmp_path) not in (output / "README.md").read_text() + json.dumps(report)
    assert set(report["written"].values()) == set(original_state("internimage_tiny_h"))
    assert report["dropped"] == {}
    assert oct((output / "model.safetensors").stat().st_mode) == oct((output / "config.json").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original.json", "original.pth", "out"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtype_and_shards(dtype, tmp_path):
    _, output, report = converted(tmp_path, dtype=dtype, max_shard_size="200KB")
    index = json.loads((output / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == len(report["files"]) > 1
    original = original_state("internimage_tiny_h")
    written = tensors_of(output)
    assert set(index["weight_map"]) == set(written) == set(report["written"])
    for ours, theirs in report["written"].items():
        assert torch.equal(written[ours], original[theirs].to(getattr(torch, dtype)))
    for default in ({}, {"dtype": "auto"}):  # what is stored does not leak into use
        assert AutoModelForImageClassification.from_pretrained(output, **default).dtype == torch.float32
    half = AutoModelForImageClassification.from_pretrained(output, dtype=getattr(torch, dtype))
    assert half.dtype == getattr(torch, dtype)
    assert verify(output, source=tmp_path / "original.pth", progress=False)["files"] == len(report["files"])
    assert report["notes"][0] == f"values were cast from float32 to {dtype}"
