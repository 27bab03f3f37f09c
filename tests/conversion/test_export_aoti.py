"""Export to AOTInductor: a program in C++ loads the package with its kernels, and computes what PyTorch does."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification
from typer.testing import CliRunner

from hf_models import hub_kernels
from hf_models.cli import app
from hf_models.conversion.export import export

from .test_export import FAMILIES, assert_same, images, saved

ROOT = Path(__file__).resolve().parents[2]
TORCH = Path(torch.__file__).parent
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(scope="module")
def classify(tmp_path_factory) -> Path:
    """The example, built as its documentation says."""
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (line,) = (line.strip() for line in page.splitlines() if line.startswith("    g++ "))
    folder = tmp_path_factory.mktemp("cpp")
    command = line.replace("$TORCH", str(TORCH)).replace("examples/", f"{ROOT}/examples/")
    subprocess.run(command, shell=True, cwd=folder, check=True)
    return folder / "classify"


def write_photos(folder: Path, count: int) -> tuple[list[Path], torch.Tensor]:
    """Photos of noise of 64 x 64 pixels, and what the model is to see of them."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    paths = [folder / f"{i}.ppm" for i in range(count)]
    for path, array in zip(paths, pixels, strict=True):
        Image.fromarray(array).save(path)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return paths, ((torch.from_numpy(pixels) / 255 - mean) / deviation).permute(0, 3, 1, 2)  # (N, 3, H, W)


def check_program(classify: Path, folder: Path, model: AutoModelForImageClassification, photos: Path) -> None:
    """Any number of photos get the class and the probability that PyTorch computes."""
    for count in (1, 3):
        paths, pixel_values = write_photos(photos, count)
        done = subprocess.run([classify, folder, *paths], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with torch.no_grad():
            scores, classes = model(pixel_values).logits.softmax(1).max(1)
        assert len(done.stdout.splitlines()) == count
        for line, path, score, best in zip(done.stdout.splitlines(), paths, scores, classes, strict=True):
            name, _, result = line.partition(": class ")
            got_class, got_score = result.split(", ")
            assert (name, int(got_class)) == (str(path), best.item())
            assert float(got_score) == pytest.approx(score.item(), rel=1e-4)


def kernel_files(kernel: str) -> set[str]:
    """The library of a kernel, where this machine has one."""
    (found,) = (status for status in hub_kernels.status() if (status.kernel, status.device) == (kernel, "cpu"))
    return {path.name for path in Path(found.path or "nowhere").glob(f"{found.version}.*")}


@needs_compiler
def test_a_program_in_cpp_runs_the_package(classify, tmp_path):
    source, model = saved("flash_internimage", tmp_path / "model")
    folder = tmp_path / "package"
    result = CliRunner().invoke(app, ["export", source, str(folder), "--format", "aoti"])
    assert result.exit_code == 0, result.output
    assert "pixel_values (batch, 3, 64, 64) -> logits" in result.stdout
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.pt2", "config.json", "preprocessor_config.json"} | kernel_files("deformable-conv")
    check_program(classify, folder, model, tmp_path)
    done = subprocess.run([classify, folder, source], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"{source}: expected a PPM file with 8 bits a colour\n"


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch_size", [None, 1])
def test_every_family_runs_in_cpp(family, batch_size, classify, tmp_path):
    source, model = saved(family, tmp_path / "model")
    report = export(source, tmp_path / "package", format="aoti", batch_size=batch_size)
    assert report.shape == (batch_size or "batch", 3, 64, 64)
    if batch_size is None:
        check_program(classify, tmp_path / "package", model, tmp_path)


@needs_compiler
@pytest.mark.slow
def test_a_package_without_kernels_holds_the_reference(tmp_path, monkeypatch):
    source, model = saved("internimage", tmp_path / "model")
    monkeypatch.setattr(hub_kernels, "_has_kernel", lambda kernel, device: False)
    export(source, tmp_path / "package", format="aoti")
    assert not list((tmp_path / "package").glob("*.so"))
    (logits,) = torch._inductor.aoti_load_package(str(tmp_path / "package" / "model.pt2"))(images(2, 3, 64, 64))
    assert_same(logits, model, images(2, 3, 64, 64))
