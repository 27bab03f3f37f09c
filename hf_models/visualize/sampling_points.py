"""Where a deformable layer reads for one pixel of a photo."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from ..deformable_aggregate import sample_positions
from ..deformable_conv import DCNv3, DCNv4
from ..errors import InputError
from .image_view import ImageView
from .photo import families_with, model_name


@dataclass(frozen=True)
class SamplingPoints:
    """What one position of a deformable layer reads; positions in pixels of the image.

    Args:
        name: Of the model and the layer.
        at: The position's own place, (x, y).
        x: (groups, points); `y`, `weight` likewise. The weights are those of the sum, after the softmax of DCNv3.
        grid: x and y of where the points would be without learned offsets, (points,) each.
        read: Whether a point touches the map, (groups, points); outside of it the operator reads zeros.
    """

    name: str
    at: tuple[float, float]
    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    grid: tuple[np.ndarray, np.ndarray]
    read: np.ndarray


def deformable_layers(model: PreTrainedModel) -> list[list[DCNv3 | DCNv4]]:
    """The layers of each stage whose sampling points can be drawn, in the order in which the stage has them."""
    stages = model.base_model.encoder.stages
    return [[module for module in stage.modules() if isinstance(module, (DCNv3, DCNv4))] for stage in stages]


def is_deformable(model: PreTrainedModel) -> bool:
    """Whether a model has layers whose sampling points can be drawn."""
    return any(deformable_layers(model))


def sampling_points(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    view: ImageView,
    *,
    at: tuple[float, float] | None = None,
    stage: int | None = None,
    layer: int | None = None,
) -> SamplingPoints:
    """The points that a deformable layer samples for the position nearest to a pixel.

    Args:
        model: An image classifier.
        pixel_values: (1, 3, height, width), with its `view` from `prepare_image`.
        at: Pixel (x, y) of the image; by default the middle of what the model sees. `stage` and `layer` as in
            `visualize_sampling`.

    Raises:
        InputError: The model has no deformable layers or not this one, or it does not see the pixel.
    """
    dcn, stage, layer, layers = _deformable_layer(model, stage, layer)
    inputs = []
    hook = dcn.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    try:
        with torch.inference_mode():
            model(pixel_values)
            x, y, weight = dcn.sampling_points(inputs[0])  # (1, H, W, groups, points) each
    finally:
        hook.remove()
    stride = model.config.stage_strides[stage]  # the stem's is the first
    height, width = x.shape[1:3]
    column, row = _position(view, at, stride, width, height)

    def in_image(x, y):
        # Every strided convolution is 3x3 with padding 1: position i of a map is centred at i * stride.
        return view.to_image(np.asarray(x) * stride, np.asarray(y) * stride)

    x, y, weight = (tensor[0, row, column].cpu().double().numpy() for tensor in (x, y, weight))  # (groups, points)
    read = (x > -1) & (y > -1) & (x < width) & (y < height)
    no_offset = torch.zeros(1, height, width, 1, x.shape[1], 2)
    grid = (axis[0, row, column, 0].numpy() for axis in sample_positions(no_offset, **dcn.aggregate_args))
    name = f"{model_name(model)}, stage {stage}, layer {layer} of {layers} ({width} x {height} positions)"
    return SamplingPoints(name, in_image(column, row), *in_image(x, y), weight, in_image(*grid), read)


def _deformable_layer(
    model: PreTrainedModel, stage: int | None, layer: int | None
) -> tuple[DCNv3 | DCNv4, int, int, int]:
    """The layer, the numbers of its stage and of itself, and how many the stage has."""
    stages = deformable_layers(model)
    if not any(stages):
        raise InputError(
            f"{model_name(model)}: no deformable layers. "
            f"`visualize sampling` fits {families_with(is_deformable)}: give one with --model."
        )
    stage = min(3, len(stages)) if stage is None else stage
    if not 1 <= stage <= len(stages):
        raise InputError(f"--stage must be from 1 to {len(stages)}, got {stage}.")
    layers = stages[stage - 1]
    layer = len(layers) if layer is None else layer
    if not 1 <= layer <= len(layers):
        raise InputError(f"--layer must be from 1 to {len(layers)} in stage {stage}, got {layer}.")
    return layers[layer - 1], stage, layer, len(layers)


def _position(
    view: ImageView, at: tuple[float, float] | None, stride: int, width: int, height: int
) -> tuple[int, int]:
    """Column and row of the position nearest to a pixel of the image."""
    left, right, bottom, top = view.frame
    x, y = ((left + right) / 2, (top + bottom) / 2) if at is None else at
    if not (left <= x <= right and top <= y <= bottom):
        ranges = f"x from {math.ceil(left)} to {math.floor(right)} and y from {math.ceil(top)} to {math.floor(bottom)}"
        raise InputError(f"pixel {x:g},{y:g}: the model does not see it. It sees {ranges}.")
    return tuple(
        min(max(round(float(position) / stride), 0), count - 1)
        for position, count in zip(view.to_input(x, y), (width, height), strict=True)
    )
