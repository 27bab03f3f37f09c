"""The folder appears whole or not at all, and `verify` finds what happened to it since."""

import sys

import pytest

from hf_models.conversion import convert, verify
from hf_models.errors import InputError

from ..harness.conversion_tester import (
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


def test_verify_against_another_source(tmp_path):
    _, output, _ = converted(tmp_path)
    other = read_manifest("internimage_tiny_h") | {"seed": 1}
    source, _ = write_original(tmp_path, other, name="other")
    with pytest.raises(InputError, match=r"other\.pth: not the file that .* was converted from"):
        verify(output, source=source, progress=False)
