"""Images with another number of channels than those a model was trained on: its stem is adapted when it is loaded."""

import math
from typing import Any

import torch
from transformers import ConversionOps, WeightConverter
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.utils import logging

logger = logging.get_logger(f"transformers.{__name__}")  # as loud as transformers is


def adapt_to_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """The weight of a first convolution for images with another number of channels, as timm makes it.

    One channel gets the sum over the old ones, so that a grey image gives what it gave as RGB. More channels repeat
    the old ones in their order, scaled by old / new, so that the outputs stay as large as they were.

    Args:
        weight: (out_channels, old channels, height, width).
        channels: The new number.
    """
    if channels == 1:
        return weight.float().sum(1, keepdim=True).to(weight.dtype)
    old = weight.shape[1]
    repeated = weight.repeat(1, math.ceil(channels / old), 1, 1)[:, :channels]
    return (repeated.float() * (old / channels)).to(weight.dtype)


def check_images(pixel_values: torch.Tensor | None, channels: int) -> None:
    """Refuse what is not (batch_size, channels, height, width)."""
    if pixel_values is None or pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
        got = None if pixel_values is None else tuple(pixel_values.shape)
        raise ValueError(
            f"pixel_values: expected (batch_size, {channels}, height, width) with {channels} channels "
            f"(config.num_channels), got {got}"
        )


class FitChannels(ConversionOps):
    """What transformers does to the weight of a first convolution that it reads: see [`adapt_to_channels`]."""

    def convert(
        self, input_dict: dict[str, list[torch.Tensor]], model: Any, full_layer_name: str, **kwargs
    ) -> dict[str, torch.Tensor]:
        """Takes and returns the weight under its name; it stays as it is where the model has its channels."""
        ((name, (weight,)),) = input_dict.items()
        channels = model.get_parameter(full_layer_name).shape[1]
        if weight.shape[1] != channels:
            logger.info(f"{full_layer_name}: adapted from {weight.shape[1]} channels of the image to {channels}.")
            weight = adapt_to_channels(weight, channels)
        return {name: weight}

    @property
    def reverse_op(self) -> ConversionOps:
        """What is done when the model is saved."""
        return Unchanged()


class Unchanged(ConversionOps):
    """Saves a weight as the model has it."""

    def convert(self, input_dict: dict[str, list[torch.Tensor]], **kwargs) -> dict[str, list[torch.Tensor]]:
        """Returns what it takes."""
        return input_dict


def fit_channels_of(model_type: str, weight: str) -> None:
    """Have models of a family adapt the weight of their first convolution to `config.num_channels` when they load it.

    Args:
        model_type: Of the family's config.
        weight: Name of the weight in the Backbone class.
    """
    fit = WeightConverter(weight, weight, [FitChannels()])
    register_checkpoint_conversion_mapping(model_type, [fit], overwrite=True)
