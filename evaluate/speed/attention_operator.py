"""Deformable attention of several levels, and what could be run instead of it."""

import math
from functools import partial

import torch
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from hf_models.multi_scale_deformable_attention import (
    multi_scale_deformable_attention,
    multi_scale_deformable_attention_reference,
)

from .deformable_operator import missing_peers
from .implementations import Implementation, Operator, Size
from .peers import deformable_attention

LEVELS = [(100, 136), (50, 68), (25, 34), (13, 17)]  # an image of 800 x 1088 at strides of 8 to 64
POSITIONS = sum(height * width for height, width in LEVELS)
POINTS = 4  # of a level
SHAPES = {  # images, queries, heads, channels of a head: those of DINO
    "encoder": (1, POSITIONS, 8, 32),
    "decoder": (1, 900, 8, 32),
}


def implementations(size: Size, dtype: torch.dtype, device: str) -> list[Implementation]:
    """Ours and the peers, on the same random inputs; queries of the encoder sample around their own position.

    Samples keep away from whole numbers of pixels, where the gradient jumps.
    """
    images, queries, heads, channels = size
    samples = (images, queries, heads, len(LEVELS), POINTS)
    value = torch.randn(images, POSITIONS, heads, channels, device=device).to(dtype)
    weights = torch.randn(samples, device=device).flatten(3).softmax(dim=-1).view(samples).to(dtype)
    sizes = torch.tensor([[width, height] for height, width in LEVELS], device=device)
    pixels = _centres(queries, device)[:, None, None, None] * sizes[:, None]  # (queries, 1, levels, 1, 2)
    pixels = (pixels + 2 * torch.randn(*samples, 2, device=device)).floor() + 0.1
    locations = (pixels + 0.8 * torch.rand(*samples, 2, device=device) + 0.5) / sizes[:, None]
    inputs = value, locations.to(dtype), weights
    found = [
        Implementation("ours", partial(multi_scale_deformable_attention, spatial_shapes=LEVELS), inputs),
        Implementation("transformers", _transformers, inputs),
    ]
    if device == "cpu" and dtype == torch.float32 and (operator := deformable_attention()):
        starts = torch.tensor([0, *(height * width for height, width in LEVELS[:-1])]).cumsum(dim=0)
        found.append(
            Implementation("torch-ms-deform-attn", lambda v, o, w: operator(v, sizes.flip(1), starts, o, w), inputs)
        )
    return found


def _centres(queries: int, device: str) -> torch.Tensor:
    """Where queries lie, (queries, 2): the encoder's at every position of the maps, the decoder's anywhere."""
    if queries != POSITIONS:
        return torch.rand(queries, 2, device=device)
    centres = []
    for height, width in LEVELS:
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        centres.append(torch.stack((x / width, y / height), dim=-1).flatten(0, 1))
    return torch.cat(centres).to(device)


def _transformers(value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Half precision is computed in float32, as autocast does with `grid_sample`."""
    inputs = value.float(), None, LEVELS, None, locations.float(), weights.float(), 64
    return MultiScaleDeformableAttention()(*inputs).to(value.dtype)


DEFORMABLE_ATTENTION = Operator(
    kernel="detection-ops",
    shapes=SHAPES,
    size_format="{} x {}, {} x {}",
    size_title="N x queries, heads x channels",
    units=lambda size: math.prod(size[:3]),  # queries and heads
    implementations=implementations,
    expected=lambda size: partial(multi_scale_deformable_attention_reference, spatial_shapes=LEVELS),
    gradients=3,
    missing=missing_peers,
)
