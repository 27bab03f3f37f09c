"""Detectors for tests: checkpoints in mmdet's format, and a small one that finds something on every photo."""

import copy
import gzip
import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForObjectDetection

from hf_models.conversion.reading.checkpoint import Checkpoint
from hf_models.conversion.reading.source import Source
from hf_models.image_processing_detection import DetectionImageProcessor

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


def make_detector(folder: Path, **kwargs) -> Path:
    """A folder with a Mask R-CNN of five classes on a small SMT, for images of about 96 x 64 pixels."""
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1] * 4, "mlp_ratios": [1] * 4}
    backbone = AutoConfig.for_model("smt", **sizes, num_attention_heads=[4, 4, 1, 1], out_indices=[1, 2, 3, 4])
    heads = {"fpn_channels": 8, "box_hidden_size": 16, "mask_convs": 1, "rpn_post_nms": 50, "max_detections": 10}
    config = AutoConfig.for_model("backbone_rcnn", backbone_config=backbone, num_labels=5, **heads | kwargs)
    model = AutoModelForObjectDetection.from_config(config).eval()
    with torch.no_grad():  # random heads are as unsure as can be; these are not
        model.box_heads[-1].classifier.weight.normal_(std=2)
        for head in model.mask_heads:
            head.classifier.weight.normal_(std=8)
    model.save_pretrained(folder)
    DetectionImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder
