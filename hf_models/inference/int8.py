"""From a model to one whose linear layers are in 8 bits."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

from ..int8_linear import Int8Linear
from ..int8_quantizer import Int8Config, Int8Quantizer, layers_of, replace_layers

# the last layer, and those that say where and with what weights a deformable convolution samples
KEPT = ("classifier", "offset", "mask", "offset_mask", "center_feature_scale")

Span = tuple[float, float]


def convertible_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Full name -> layer, for the linear layers that [`convert_to_int8`] replaces."""
    return layers_of(model, nn.Linear, KEPT)


@torch.inference_mode()
def input_spans(model: PreTrainedModel, batches: Iterable[torch.Tensor]) -> dict[str, Span]:
    """The smallest and the largest number that comes into each of [`convertible_layers`].

    Args:
        model: In evaluation mode.
        batches: Of images (batch_size, channels, height, width).
    """
    spans: dict[str, Span] = {}
    handles = [
        layer.register_forward_pre_hook(_watching(spans, name)) for name, layer in convertible_layers(model).items()
    ]
    try:
        for pixel_values in batches:
            model(pixel_values)
    finally:
        for handle in handles:
            handle.remove()
    return spans


def convert_to_int8(model: PreTrainedModel, spans: dict[str, Span]) -> PreTrainedModel:
    """Replace the linear layers of a model, in place, and say so in its config.

    Args:
        model: Its weights are finite.
        spans: As [`input_spans`] returns them; empty for a model that finds the span of an input in every call.
    """
    replace_layers(model, nn.Linear, KEPT, lambda name, layer: Int8Linear.from_linear(layer, spans.get(name)))
    model.config.quantization_config = Int8Config(KEPT, calibrated=bool(spans))
    model.hf_quantizer = Int8Quantizer(model.config.quantization_config)
    return model


def _watching(spans: dict[str, Span], name: str) -> Callable[[nn.Module, tuple[torch.Tensor]], None]:
    def watch(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        smallest, largest = (bound.item() for bound in torch.aminmax(inputs[0]))
        seen = spans.get(name, (smallest, largest))
        spans[name] = min(smallest, seen[0]), max(largest, seen[1])

    return watch
