"""Which kernel is chosen, where it is looked for, and what the user is told."""

import dataclasses
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hf_models import hub_kernels, kernel_places
from hf_models.cli import app
from hf_models.errors import InputError

from ..harness.environment import Environment
from ..harness.kernel_builder import KERNELS_SRC, built_kernel

NAME = "deformable-conv"


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """Nothing decided yet, nothing in the environment, no builds."""
    for name in ("HF_MODELS_KERNELS", "HF_MODELS_TRUST_KERNELS", "LOCAL_KERNELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_MODELS_KERNELS_DIR", str(tmp_path))
    monkeypatch.setattr(hub_kernels, "_modules", {})
    monkeypatch.setattr(hub_kernels, "KERNELS", {NAME: hub_kernels.KERNELS[NAME]})
    hub_kernels._choose.cache_clear()
    hub_kernels._log.cache_clear()
    yield
    hub_kernels._choose.cache_clear()
    hub_kernels._log.cache_clear()


def choose():
    return hub_kernels.get_function(NAME, "deformable_aggregate", "cpu")


def printed_status():
    result = CliRunner().invoke(app, ["kernels", "status"])
    assert result.exit_code == 0 and not result.stderr
    return result.stdout


def test_without_a_build_the_reference_runs_and_says_so_once(caplog, tmp_path):
    with caplog.at_level(logging.INFO, logger="hf_models"):
        assert choose() is None
        assert choose() is None
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith("deformable-conv on cpu: PyTorch reference (no kernel is built). ")
    assert "Run" not in caplog.text and "`hf-models kernels build` builds it" in caplog.text
    status = hub_kernels.status()[0]
    assert (status.kernel, status.device, status.chosen, status.path) == ("deformable-conv", "cpu", "reference", None)
    assert f"{tmp_path / NAME}: nothing is built there" in status.reason
    lines = printed_status().splitlines()
    assert lines == [
        "deformable-conv on cpu: PyTorch reference",
        f"  {tmp_path / NAME}: nothing is built there",
        "  the Hub: HF_MODELS_TRUST_KERNELS names no repository of it",
        "  To build it, run `hf-models kernels build`.",
    ]


def test_off(monkeypatch, caplog):
    monkeypatch.setenv("HF_MODELS_KERNELS", "off")
    with caplog.at_level(logging.INFO, logger="hf_models"):
        assert choose() is None
    assert [record.levelno for record in caplog.records] == [logging.INFO], "the user knows"
    assert hub_kernels.status()[0].reason == "HF_MODELS_KERNELS is off"
    assert printed_status() == "deformable-conv on cpu: PyTorch reference (HF_MODELS_KERNELS is off)\n"


def test_require_without_a_kernel_is_an_error(monkeypatch):
    monkeypatch.setenv("HF_MODELS_KERNELS", "require")
    with pytest.raises(InputError, match="deformable-conv: HF_MODELS_KERNELS is require, but there is no kernel"):
        choose()


def test_an_unknown_mode_is_an_error(monkeypatch):
    monkeypatch.setenv("HF_MODELS_KERNELS", "yes")
    with pytest.raises(InputError, match="expected one of auto, off, require, got yes"):
        choose()


def test_a_broken_build_is_a_reason_not_an_error(tmp_path, caplog):
    """One for another version of torch, and one that is damaged; the user is told once, with the way out."""
    variant = tmp_path / NAME / "build" / "torch-stable-abi299-cpu-x86_64-linux"
    variant.mkdir(parents=True)
    (variant / "metadata.json").write_text("{}")
    assert choose() is None
    assert str(tmp_path) in hub_kernels.status()[0].reason
    (told,) = caplog.messages
    assert "Torch stable ABI version (2.99) is too new" in told or "does not match system CPU" in told
    assert told.endswith("`hf-models kernels build` builds it for this Python environment.")
    assert "TRUST_KERNELS" not in told, "the user did not speak of the Hub"


def test_a_build_of_older_sources_is_not_used(monkeypatch, caplog):
    built_kernel(NAME)
    monkeypatch.setenv("HF_MODELS_KERNELS_DIR", str(KERNELS_SRC))
    newer = dataclasses.replace(hub_kernels.KERNELS[NAME], functions=("deformable_aggregate", "deformable_more"))
    monkeypatch.setitem(hub_kernels.KERNELS, NAME, newer)
    assert choose() is None
    (told,) = caplog.messages
    assert "built from older sources, without deformable_more" in told
    assert told.endswith("`hf-models kernels build` builds it for this Python environment.")


def test_the_network_is_not_touched(monkeypatch):
    monkeypatch.setitem(sys.modules, "kernels", None)
    assert choose() is None
    assert "does not import" in hub_kernels.status()[0].reason


def test_places(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    assert kernel_places.build_directories() == [tmp_path]  # what the variable names replaces the other places
    assert kernel_places.default_directory() == tmp_path
    monkeypatch.delenv("HF_MODELS_KERNELS_DIR")
    environment, cache = kernel_places.build_directories()
    assert environment == tmp_path / "environment" / "share" / "hf_models" / "kernels"
    assert cache == tmp_path / "cache" / "hf_models" / "kernels"
    assert kernel_places.default_directory() == environment
    # the Python of the system, into which only its administrator writes
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path or mode != os.W_OK)
    assert kernel_places.default_directory() == cache


def test_what_was_built_is_found_without_a_variable(tmp_path):
    """In an environment of its own, in new processes: what `kernels build` writes is what models and commands use."""
    environment = Environment(tmp_path, package=True)
    place = environment.prefix.joinpath("share", "hf_models", "kernels", NAME)
    shutil.copytree(built_kernel(NAME), place, ignore=lambda _, names: {"__pycache__", ".lock"}.intersection(names))

    def run(*arguments):
        done = environment.run(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done

    built = Path(run("-m", "hf_models.cli", "kernels", "build", NAME).stdout.strip())
    assert built.parent == place / "build", "it would have been compiled, had it not been there"
    code = "from hf_models.hub_kernels import get_function\n"
    code += f"print(get_function('{NAME}', 'deformable_aggregate', 'cpu').__module__)"
    done = run("-c", code)
    build = json.loads((built / "metadata.json").read_text())["id"]
    assert done.stdout.startswith(build) and not done.stderr

    # another version of torch in the environment's place, this one's in the home cache
    cache = environment.home.joinpath(".cache", "hf_models", "kernels", NAME)
    shutil.copytree(place, cache)
    built.rename(built.with_name(built.name.replace("abi211", "abi299")))
    lines = run("-m", "hf_models.cli", "kernels", "status").stdout.splitlines()
    lines = lines[: lines.index("large-kernel-conv on cpu: PyTorch reference")]
    assert lines[0] == f"deformable-conv on cpu: local build {build}, for float32, float64, bfloat16, float16"
    assert lines[1] == f"  loaded from {cache / 'build' / built.name}"
    assert lines[2].startswith(f"  {place}: ") and "Torch stable ABI version (2.99) is too new" in lines[2]
    assert lines[3:] == [f"  {cache}: used", "  the Hub: HF_MODELS_TRUST_KERNELS names no repository of it"]


@pytest.mark.parametrize("place", ["HF_MODELS_KERNELS_DIR", "LOCAL_KERNELS"])
def test_a_local_build_is_used(monkeypatch, caplog, place):
    folder = built_kernel("deformable-conv")
    monkeypatch.setenv(place, f"hf-models/deformable-conv={folder}" if place == "LOCAL_KERNELS" else str(KERNELS_SRC))
    monkeypatch.setenv("HF_MODELS_KERNELS", "require")
    with caplog.at_level(logging.INFO, logger="hf_models"):
        assert choose().__name__ == "deformable_aggregate"
    assert "deformable-conv on cpu: from" in caplog.text
    status = hub_kernels.status()[0]
    assert status.chosen == "local"
    assert status.path.startswith(str(folder))
    assert "bfloat16" in status.dtypes
    assert [place.result for place in status.places[:-1]] == ["used", "not looked at"][: len(status.places) - 1]
    assert f"deformable-conv on cpu: local build {status.version}, for float32" in printed_status()
    assert "Run" not in printed_status()
    monkeypatch.setattr("hf_models.kernels_src.build.build_id", lambda folder, backend: "_deformable_conv_cpu_1234567")
    assert "built from other sources than this version's. Run `hf-models kernels build`." in printed_status()
