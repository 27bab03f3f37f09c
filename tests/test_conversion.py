"""Conversion: names, configs, forms of files, the folder that appears, and what `verify` finds."""

import argparse
import dataclasses
import gzip
import json
import sys
from math import prod
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification
from typer.testing import CliRunner

from hf_models import zoo
from hf_models.auto import FAMILIES as REGISTERED
from hf_models.cli import app
from hf_models.conversion import convert, verify
from hf_models.conversion.family import differences
from hf_models.conversion.key_map import Rule, rename
from hf_models.conversion.registry import FAMILIES, model_tensors
from hf_models.conversion.report import published_sha256
from hf_models.errors import InputError
from hf_models.large_kernel_conv import ReparameterizableLargeKernelConv

from .conversion_tester import TINY, original_state, read_manifest, upstream_config, write_original

PUBLISHED = json.loads(gzip.decompress((Path(__file__).parent / "fixtures/published_manifests.json.gz").read_bytes()))
BACKBONES = {config.model_type: backbone for config, _, _, backbone in REGISTERED}


def converted(tmp_path: Path, name: str = "internimage_tiny_h", **kwargs) -> tuple[Path, Path, dict]:
    """The source, the converted folder and the report."""
    source, config = write_original(tmp_path, read_manifest(name))
    report = convert(source, tmp_path / "out", original_config=config, progress=False, **kwargs)
    return source, tmp_path / "out", report


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def convert_state(tmp_path: Path, name: str, state, **kwargs) -> dict:
    """Convert a state dict, or whatever a checkpoint of that model holds."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(read_manifest(name)["config"]))
    torch.save(state, tmp_path / "checkpoint.pth")
    output = tmp_path / "out"
    return convert(tmp_path / "checkpoint.pth", output, original_config=config, progress=False, **kwargs)


@pytest.fixture
def tiny_zoo(monkeypatch):
    """A published checkpoint that is small: `internimage_tiny_l`, and a wider one beside it."""
    published = dataclasses.replace(
        zoo.get_model("internimage_l_22kto1k_384"),
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
    models = (*zoo._models(), published, wider)
    monkeypatch.setattr(zoo, "_models", lambda: models)
    return published


# --- names and configs


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
    entry, model = PUBLISHED[published], zoo.get_model(published.removesuffix(" merged"))
    family = FAMILIES[model.family]
    renamed = family.rename(entry["tensors"])
    shapes = {new: tuple(entry["tensors"][old]) for old, new in renamed.items()}
    shown = family.facts_of_weights(shapes)
    assert all(value is not None for name, value in shown.items() if name in ("num_classes", "channels", "depths"))
    from_original, from_zoo = family.config_from_original(entry["config"], shown), model.config()
    for config in (from_original, from_zoo):
        family.adopt(config, shown)
        assert differences(shown, family.facts_of_config(config)) == {}
        expected, buffers = model_tensors(family, config)
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


# --- what users do with the result


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
    assert not info["missing_keys"]
    assert all(key.startswith(("classifier.", f"{family}.pooler.")) for key in info["unexpected_keys"])
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
    assert sorted(path.name for path in output.iterdir()) == files
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
    assert AutoModelForImageClassification.from_pretrained(output).dtype == getattr(torch, dtype)
    assert verify(output, source=tmp_path / "original.pth", progress=False)["files"] == len(report["files"])
    assert report["notes"][0] == f"values were cast from float32 to {dtype}"


# --- forms of checkpoints


def test_containers_and_wrappers(tmp_path):
    """Flat, nested, prefixed, in the old format, and as safetensors: the same result."""
    state = original_state("smt_tiny_like")
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    written = []
    for i, content in enumerate((state, {"state_dict": wrapped, "epoch": 3}, {"module": state})):
        folder = tmp_path / str(i)
        folder.mkdir()
        report = convert_state(folder, "smt_tiny_like", content)
        written.append(tensors_of(folder / "out"))
        assert report["dropped"] == ({"epoch": "not weights (int)"} if i == 1 else {})
    config = tmp_path / "0" / "config.json"
    torch.save({"model": state}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "new.safetensors")
    for name in ("old.bin", "new.safetensors"):
        convert(tmp_path / name, tmp_path / name[:3], original_config=config, progress=False)
        written.append(tensors_of(tmp_path / name[:3]))
    for other in written[1:]:
        assert other.keys() == written[0].keys()
        assert all(torch.equal(other[name], written[0][name]) for name in other)


def test_metadata_of_training_scripts_is_read_safely_and_dropped(tmp_path):
    yacs = pytest.importorskip("yacs.config")
    state = original_state("smt_tiny_like")
    extras = {"config": yacs.CfgNode({"MODEL": {"TYPE": "smt"}}), "args": argparse.Namespace(lr=1e-3), "optimizer": {}}
    report = convert_state(tmp_path, "smt_tiny_like", {"model": state, **extras})
    assert set(report["dropped"]) == set(extras)


def test_weights_chooses_between_model_and_ema(tmp_path):
    state = original_state("smt_tiny_like")
    ema = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    report = convert_state(tmp_path, "smt_tiny_like", {"model": state, "model_ema": ema}, weights="ema")
    assert report["source"]["weights"] == "ema" and report["dropped"] == {"model": "not chosen: --weights ema"}
    assert torch.equal(tensors_of(tmp_path / "out")["classifier.weight"], ema["head.weight"])
    assert verify(tmp_path / "out", source=tmp_path / "checkpoint.pth", progress=False)


def test_strided_shared_and_double_tensors_are_copied_with_a_note(tmp_path):
    state = {name: t.double() if t.is_floating_point() else t for name, t in original_state("smt_tiny_like").items()}
    state["head.weight"] = state["head.weight"].t().contiguous().t()
    both = torch.cat((state["norm1.weight"], state["norm1.bias"]))
    state["norm1.weight"], state["norm1.bias"] = both.chunk(2)
    report = convert_state(tmp_path, "smt_tiny_like", state)
    assert report["dtype"] == "float32" and "values were cast from float64 to float32" in report["notes"]
    assert any("copied: norm1.weight, norm1.bias, head.weight" in note for note in report["notes"])
    assert torch.equal(tensors_of(tmp_path / "out")["classifier.weight"], state["head.weight"].float())


def test_smt_names_of_the_detection_code(tmp_path):
    state = {name.replace(".local_conv.", ".dw_conv."): t for name, t in original_state("smt_tiny_like").items()}
    assert any(".dw_conv." in name for name in state)
    convert_state(tmp_path, "smt_tiny_like", state)


def test_replknet_names_of_pretraining_files_and_of_openmmlab(tmp_path):
    state = original_state("replknet_31_like")
    pretraining = {name.replace("head.", "head.cls_22k."): tensor for name, tensor in state.items()}
    openmmlab = {
        name.replace("head.", "head.fc.")
        if name.startswith("head.")
        else f"backbone.stages.3.{name}"
        if name.startswith("norm.")
        else f"backbone.{name}": tensor
        for name, tensor in state.items()
    }
    for i, variant in enumerate((pretraining, openmmlab)):
        folder = tmp_path / str(i)
        folder.mkdir()
        convert_state(folder, "replknet_31_like", variant)


@pytest.mark.parametrize("name", ["replknet_31_like", "replknet_xl_like"])
def test_merged_replknet_converts_and_equals_the_unmerged(name, tmp_path):
    """The form of the file decides, whatever the arguments say."""
    _, output, _ = converted(tmp_path, name)
    unmerged = AutoModelForImageClassification.from_pretrained(output).eval()
    merged = AutoModelForImageClassification.from_pretrained(output).eval()
    for module in merged.modules():
        if isinstance(module, ReparameterizableLargeKernelConv):
            module.merge()
    original = {}
    ours_to_theirs = json.loads((output / "conversion_report.json").read_text())["written"]
    for ours, tensor in merged.state_dict().items():
        if ".large_kernel.merged." in ours:
            branch, leaf = ours.split(".merged.")
            theirs = ours_to_theirs[f"{branch}.large.conv.weight"].replace(
                "lkb_origin.conv.weight", f"lkb_reparam.{leaf}"
            )
        else:
            theirs = ours_to_theirs[ours]
        original[theirs] = tensor
    (tmp_path / "merged").mkdir()
    convert_state(tmp_path / "merged", name, original)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "merged" / "out").eval()
    assert loaded.config.reparameterized
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(pixel_values).logits, unmerged(pixel_values).logits, rtol=1e-4, atol=1e-5)


# --- upstream's own Hugging Face format, and the Hub


def write_upstream(
    folder: Path, *, name: str = "internimage_tiny_l", shards: int = 1, suffix: str = "safetensors"
) -> Path:
    folder.mkdir()
    state = {f"model.{n.replace('gamma', 'layer_scale')}": tensor for n, tensor in original_state(name).items()}
    (folder / "config.json").write_text(json.dumps(upstream_config(read_manifest(name))))
    preprocessor = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 96, "crop_size": 80, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names, weight_map = list(state), {}
    for i in range(shards):
        part = {n: state[n] for n in names[i::shards]}
        file = f"{stem}.{suffix}" if shards == 1 else f"{stem}-{i + 1:05}-of-{shards:05}.{suffix}"
        save_file(part, folder / file) if suffix == "safetensors" else torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


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
    monkeypatch.setattr("hf_models.conversion.source.snapshot_download", lambda repo_id, allow_patterns: str(snapshot))
    report = convert("OpenGVLab/internimage_tiny", tmp_path / "by_id", progress=False)
    assert report["name"] == "internimage_tiny_l" and report["source"]["revision"] == "abc123"

    asked = {}

    def download(repo_id, filename):
        asked.update(repo_id=repo_id, filename=filename)
        return str(snapshot / "model.safetensors")

    monkeypatch.setattr("hf_models.conversion.source.hf_hub_download", download)
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


# --- the folder appears whole or not at all


def test_dry_run_writes_nothing(tmp_path):
    source, config = write_original(tmp_path, read_manifest("smt_tiny_like"))
    report = convert(source, tmp_path / "deep" / "out", original_config=config, dry_run=True, progress=False)
    assert report["parameters"] and not (tmp_path / "deep").exists()


def test_overwrite_replaces_a_model_repository_and_nothing_else(tmp_path):
    source, output, _ = converted(tmp_path)
    (output / "stale.txt").write_text("old")
    config = tmp_path / "original.json"
    convert(source, output, original_config=config, overwrite=True, progress=False)
    assert not (output / "stale.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original.json", "original.pth", "out"]
    (output / "config.json").unlink()
    with pytest.raises(InputError, match="not a model repository"):
        convert(source, output, original_config=config, overwrite=True, progress=False)


def test_overwrite_does_not_delete_its_source(tmp_path):
    source = write_upstream(tmp_path / "upstream")
    with pytest.raises(InputError, match="holds the source"):
        convert(source, source, overwrite=True, progress=False)
    assert (source / "model.safetensors").exists()


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("overwrite", [False, True])
def test_failure_leaves_things_as_they_were(failure, overwrite, tmp_path, monkeypatch):
    source, config = write_original(tmp_path, read_manifest("smt_tiny_like"))
    output = tmp_path / "new" / "out"
    if overwrite:
        convert(source, output, original_config=config, progress=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(sys.modules[convert.__module__], "render_card", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else InputError):
        convert(source, output, original_config=config, overwrite=overwrite, progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert output.exists() == overwrite


def test_full_disk_is_noticed_before_writing(tmp_path, monkeypatch):
    source, config = write_original(tmp_path, read_manifest("smt_tiny_like"))
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"needs 0\.0 GB, 0\.0 GB are free"):
        convert(source, tmp_path / "out", original_config=config, progress=False)


# --- verify


def damage_value(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["classifier.bias"][0] += 1
    save_file(tensors, path, metadata={"format": "pt"})


def damage_nan(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["classifier.bias"][:3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})


def drop_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["classifier.bias"]
    save_file(tensors, path, metadata={"format": "pt"})


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"depths": [1, 1, 3, 1]}))


def escape(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    weight_map = dict.fromkeys(
        json.loads((folder / "conversion_report.json").read_text())["written"], "../outside.safetensors"
    )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_value, "model.safetensors changed since the conversion"),
        (damage_nan, "classifier.bias: 3 of 10 values are NaN"),
        (drop_tensor, "missing or superfluous for its config: classifier.bias"),
        (truncate, "truncated"),
        (change_config, "missing or superfluous"),
        (escape, 'shard "../outside.safetensors" leaves the folder'),
        (lambda folder: (folder / "conversion_report.json").unlink(), "conversion_report.json: no such file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds neither"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "vit"}'),
            "model_type 'vit' is not one of",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "not readable as JSON"),
    ],
)
def test_verify_finds_damage(damage, message, tmp_path):
    _, output, _ = converted(tmp_path)
    damage(output)
    result = CliRunner().invoke(app, ["verify", str(output)])
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1


def test_verify_against_another_source(tmp_path):
    _, output, _ = converted(tmp_path)
    other = read_manifest("internimage_tiny_h") | {"seed": 1}
    source, _ = write_original(tmp_path, other, name="other")
    with pytest.raises(InputError, match=r"other\.pth: not the file that .* was converted from"):
        verify(output, source=source, progress=False)


# --- the command line


def test_commands(tmp_path):
    source, config = write_original(tmp_path, read_manifest("smt_tiny_like"))
    run = CliRunner().invoke
    arguments = ["convert", str(source), str(tmp_path / "out"), "--original-config", str(config)]
    result = run(app, [*arguments, "--dry-run"])
    assert result.exit_code == 0 and json.loads(result.stdout)["dtype"] == "float32"
    result = run(app, [*arguments, "--dtype", "bfloat16", "--max-shard-size", "100KB"])
    assert result.exit_code == 0 and "parameters from" in result.stdout
    result = run(app, ["verify", str(tmp_path / "out"), "--source", str(source)])
    assert result.exit_code == 0 and "equal to" in result.stdout
    result = run(app, [*arguments, "--verbose"])
    assert isinstance(result.exception, InputError), "--verbose shows the traceback"


def test_list_command():
    run = CliRunner().invoke
    models = json.loads(run(app, ["list", "--family", "smt", "--json"]).stdout)
    assert [model["name"] for model in models] == zoo.list_models(family="smt")
    assert "internimage_t_1k_224" in run(app, ["list", "internimage_t*"]).stdout
    result = run(app, ["list", "--family", "resnet"])
    assert result.exit_code == 2 and "internimage" in result.stderr


def test_classify_command(tmp_path):
    _, output, _ = converted(tmp_path, "smt_tiny_like")
    image = tmp_path / "image.png"
    Image.new("RGB", (80, 60), (200, 30, 30)).save(image)
    arguments = ["classify", str(image), "--model", str(output), "--top-k", "3"]
    (entry,) = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert entry["image"] == str(image) and len(entry["labels"]) == 3
    lines = CliRunner().invoke(app, arguments).stdout.splitlines()
    assert lines[0] == str(image) and len(lines) == 4
    result = CliRunner().invoke(app, ["classify", str(tmp_path / "none.jpg"), "--model", str(output)])
    assert result.exit_code == 2 and "none.jpg: no such file" in result.stderr


def test_module_is_the_convert_command(monkeypatch, capsys):
    import runpy

    monkeypatch.setattr(sys, "argv", ["convert", "--help"])
    with pytest.raises(SystemExit) as exit:
        runpy.run_module("hf_models.conversion", run_name="__main__")
    assert exit.value.code == 0 and "SOURCE" in capsys.readouterr().out.upper()
