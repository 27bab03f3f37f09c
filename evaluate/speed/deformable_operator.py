"""The deformable operator, and what could be run instead of it."""

import math
from functools import partial

import torch
from torch.nn import functional as F

from hf_models.deformable_aggregate import deformable_aggregate

from .implementations import Implementation, Operator, Size
from .peers import MISSING_ATTENTION, deformable_attention, grid_sample_core, peers

SHAPES = {  # images, height, width, groups, channels of a group; kernel 3x3, stride 1, padding 1
    "seed56": (8, 56, 56, 4, 32),
    "seed28": (8, 28, 28, 8, 32),
    "seed14": (8, 14, 14, 16, 32),
    "seed7": (8, 7, 7, 32, 32),
    "T56": (8, 56, 56, 4, 16),  # those of InternImage-T
    "T28": (8, 28, 28, 8, 16),
    "T14": (8, 14, 14, 16, 16),
    "T7": (8, 7, 7, 32, 16),
    "iso14": (64, 14, 14, 24, 32),
    "hi200": (1, 200, 320, 4, 32),
    "hi128": (1, 128, 128, 4, 32),
}


def implementations(size: Size, dtype: torch.dtype, device: str) -> list[Implementation]:
    """Ours and the peers, on the same random inputs."""
    value, offset, logits = (
        torch.randn(shape, device=device).to(dtype) for shape in (size, (*size[:4], 9, 2), (*size[:4], 9))
    )
    weight = logits.softmax(-1)
    ours = partial(deformable_aggregate, kernel_size=3, padding=1)
    return [
        Implementation("ours", ours, (value, offset, weight)),
        Implementation("ours, fused softmax", partial(ours, softmax=True), (value, offset, logits)),
        Implementation(
            "ours after F.softmax",
            lambda value, offset, logits: ours(value, offset, F.softmax(logits, dim=-1)),
            (value, offset, logits),
        ),
        *peers(value, offset, weight),
    ]


def missing_peers(device: str) -> str:
    """Says that torch-ms-deform-attn is not installed, where it could run."""
    return "" if device != "cpu" or deformable_attention() else MISSING_ATTENTION


DEFORMABLE_CONV = Operator(
    kernel="deformable-conv",
    shapes=SHAPES,
    size_format="{} x {} x {}, {} x {}",
    size_title="N x H x W, groups x channels",
    units=lambda size: math.prod(size[:4]),  # pixels and groups
    implementations=implementations,
    expected=lambda size: grid_sample_core,
    gradients=1,  # the offsets of some are locations, the weights of some logits
    missing=missing_peers,
)
