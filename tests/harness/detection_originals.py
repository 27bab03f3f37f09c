"""Detection checkpoints in mmdet's format: names and shapes of the published ones, and small ones with values."""

import copy
import gzip
import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from hf_models.conversion.reading.checkpoint import Checkpoint
from hf_models.conversion.reading.source import Source

FIXTURES = Path(__file__).parents[1] / "fixtures" / "detection"
# name -> the published checkpoint, the model dict of its config, the number of parameters, the shapes of its tensors
MANIFESTS = json.loads(gzip.decompress((FIXTURES / "manifests.json.gz").read_bytes()))


def shapes_of(name: str) -> dict[str, list[int]]:
    """Name -> shape of a published checkpoint's tensors; of those with the same, one has them written out."""
    shapes = MANIFESTS[name]["tensors"]
    return shapes_of(shapes) if isinstance(shapes, str) else shapes


def opened(name: str, given: str | None = None) -> Checkpoint:
    """A published checkpoint of which only names and shapes exist."""
    tensors = {
        key: torch.empty(shape, dtype=torch.int64 if key.endswith("num_batches_tracked") else None, device="meta")
        for key, shape in shapes_of(name).items()
    }
    return Checkpoint(Source(given or f"{name}.pth", []), "model", tensors, {}, {}, [])


@cache
def golden(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """A small detector that the original code ran: what is known of it, and tensors of all steps."""
    stored = json.loads((FIXTURES / f"det_{name}.json").read_text())
    return stored, load_file(FIXTURES / f"det_{name}.safetensors")


def golden_checkpoint(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """The state dict of a golden, and its model dict."""
    stored, tensors = golden(name)
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
    return weights, copy.deepcopy(stored["model_cfg"])
