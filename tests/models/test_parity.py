"""Converted checkpoints compute what the original code computed.

The fixtures hold names and shapes of checkpoints, and what the originals returned for seeded weights on a seeded
input. The full-size ones are too large for the repository: `HF_MODELS_PARITY` names a folder with `manifests/` and
`expected/` of the same form.
"""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

import hf_models  # noqa: F401  registers the families
from hf_models.auto import FAMILIES
from hf_models.conversion import convert

from ..harness.conversion_tester import MANIFESTS, TINY, read_manifest, write_original
from ..harness.seeded_checkpoint import seeded_input

BACKBONES = {config.model_type: backbone for config, _, _, backbone in FAMILIES}
TOLERANCE = 1e-4  # of the largest value; a right port reaches 1e-5
# amplifies float32 noise with seeded weights, so its expectation was computed in float64
FLOAT64 = {"float64": 1e-5, "float32": 3e-3}
FULL_SIZE = (
    "internimage_t_1k_224",
    "internimage_l_22kto1k_384",
    "flash_intern_image_t_1k_224",
    "smt_tiny",
    "RepLKNet-31B_ImageNet-1K_224",
)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def stored_part(stage: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """The values of a stage that are stored: all, or about 2,048 at equal distances."""
    if stage.shape == expected.shape:
        return stage
    flat = stage.flatten(1)
    return flat[:, :: max(1, flat.shape[1] // 2048)][:, :2048]


def check(name: str, folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(name, folder / "manifests")
    expected = load_file(folder / "expected" / f"{name}.safetensors")
    checkpoint, config = write_original(tmp_path, manifest)
    output = tmp_path / name
    convert(checkpoint, output, original_config=config, progress=False)
    checkpoint.unlink()

    classifier = AutoModelForImageClassification.from_pretrained(output).eval()
    backbone = BACKBONES[manifest["config"]["family"]].from_pretrained(output).eval()
    backbone.out_features = backbone.stage_names[1:]
    pixel_values = torch.from_numpy(seeded_input(manifest["input_shape"], manifest["seed"]))
    runs = {"float32": TOLERANCE} if manifest.get("computed_in") != "float64" else FLOAT64
    for dtype, tolerance in runs.items():
        dtype = getattr(torch, dtype)
        with torch.inference_mode():
            logits = classifier.to(dtype)(pixel_values.to(dtype)).logits
            stages = backbone.to(dtype)(pixel_values.to(dtype)).feature_maps
        assert relative_error(logits, expected["logits"]) <= tolerance
        assert len(stages) == 4
        for i, stage in enumerate(stages, start=1):
            wanted = expected[f"stage{i}"]
            assert relative_error(stored_part(stage, wanted), wanted) <= tolerance, f"stage{i}"


@pytest.mark.parametrize("name", TINY)
def test_tiny(name, tmp_path):
    check(name, MANIFESTS.parent, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size(name, tmp_path):
    if "HF_MODELS_PARITY" not in os.environ:
        pytest.skip("HF_MODELS_PARITY names no folder with manifests/ and expected/ of full-size models")
    check(name, Path(os.environ["HF_MODELS_PARITY"]), tmp_path)
