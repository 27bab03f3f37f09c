"""Which kernel is chosen, and what the user is told."""

import logging
import sys

import pytest

from hf_models import hub_kernels
from hf_models.errors import InputError

from ..harness.kernel_builder import KERNELS_SRC, built_kernel


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """Nothing decided yet, nothing in the environment, no builds."""
    for name in ("HF_MODELS_KERNELS", "HF_MODELS_TRUST_KERNELS", "LOCAL_KERNELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_MODELS_KERNELS_DIR", str(tmp_path))
    monkeypatch.setattr(hub_kernels, "_modules", {})
    hub_kernels._choose.cache_clear()
    yield
    hub_kernels._choose.cache_clear()


def choose():
    return hub_kernels.get_function("deformable-conv", "deformable_aggregate", "cpu")


def test_without_a_build_the_reference_runs_and_says_so_once(caplog, tmp_path):
    with caplog.at_level(logging.INFO, logger="hf_models"):
        assert choose() is None
        assert choose() is None
    assert len(caplog.records) == 1
    assert "deformable-conv on cpu: PyTorch reference (not built in" in caplog.text
    status = hub_kernels.status()[0]
    assert (status.kernel, status.device, status.chosen, status.path) == ("deformable-conv", "cpu", "reference", None)
    assert str(tmp_path / "deformable-conv") in status.reason


def test_off(monkeypatch):
    monkeypatch.setenv("HF_MODELS_KERNELS", "off")
    assert choose() is None
    assert hub_kernels.status()[0].reason == "HF_MODELS_KERNELS is off"


def test_require_without_a_kernel_is_an_error(monkeypatch):
    monkeypatch.setenv("HF_MODELS_KERNELS", "require")
    with pytest.raises(InputError, match="deformable-conv: HF_MODELS_KERNELS is require, but there is no kernel"):
        choose()


def test_an_unknown_mode_is_an_error(monkeypatch):
    monkeypatch.setenv("HF_MODELS_KERNELS", "yes")
    with pytest.raises(InputError, match="expected one of auto, off, require, got yes"):
        choose()


def test_a_broken_build_is_a_reason_not_an_error(tmp_path):
    (tmp_path / "deformable-conv").mkdir()
    assert choose() is None
    assert str(tmp_path) in hub_kernels.status()[0].reason


def test_the_network_is_not_touched(monkeypatch):
    monkeypatch.setitem(sys.modules, "kernels", None)
    assert choose() is None
    assert "does not import" in hub_kernels.status()[0].reason


@pytest.mark.parametrize("place", ["HF_MODELS_KERNELS_DIR", "LOCAL_KERNELS"])
def test_a_local_build_is_used(monkeypatch, caplog, place):
    folder = built_kernel("deformable-conv")
    monkeypatch.setenv(place, f"hf-models/deformable-conv={folder}" if place == "LOCAL_KERNELS" else str(KERNELS_SRC))
    monkeypatch.setenv("HF_MODELS_KERNELS", "require")
    monkeypatch.setattr(hub_kernels, "KERNELS", {"deformable-conv": hub_kernels.KERNELS["deformable-conv"]})
    with caplog.at_level(logging.INFO, logger="hf_models"):
        assert choose().__name__ == "deformable_aggregate"
    assert "deformable-conv on cpu: from" in caplog.text
    status = hub_kernels.status()[0]
    assert status.chosen == "local"
    assert status.path.startswith(str(folder))
    assert "bfloat16" in status.dtypes
