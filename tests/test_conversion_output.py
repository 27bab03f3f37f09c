"""The folder appears whole or not at all, and `verify` finds what happened to it since."""

import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.conversion import convert, verify
from hf_models.errors import InputError

from .conversion_tester import (
    converted,
    read_manifest,
    write_original,
    write_upstream,
)


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
