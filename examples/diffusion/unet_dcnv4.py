"""U-Nets of diffusers with DCNv4 in the place of the convolutions of their residual blocks.

The DCNv4 paper (https://arxiv.org/abs/2401.06197, section 4.4) does so in Stable Diffusion's U-Net and reports 566
instead of 860 million parameters. Its code is unpublished. These two numbers come out if DCNv4 with groups of 32
channels takes the place of the two 3x3 convolutions of each residual block, and nothing else changes: neither
attention, nor shortcuts, nor the changes of resolution.
"""

import inspect

import torch
from diffusers import UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from hf_models.adopted_layers import AVERAGE
from hf_models.deformable_conv import DCNv4
from hf_models.layers import channels_last, on_channels_last, xavier_linear


class ConvDCNv4(nn.Module):
    """DCNv4 called like the 3x3 convolution whose place it takes.

    Args:
        in_channels: Channels of the input, in which is sampled.
        out_channels: Channels that the output projection makes of them.
        group_width: Channels of each aggregation group; divides `in_channels`.
    """

    def __init__(self, in_channels: int, out_channels: int, group_width: int):
        super().__init__()
        # from weights of zero, no gradient would reach the first of two such layers in a row
        self.dcn = DCNv4(in_channels, in_channels // group_width, initial_weight=AVERAGE)
        self.dcn.output_proj = xavier_linear(in_channels, out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes (N, in_channels, H, W) and returns (N, out_channels, H, W), channels-last in memory."""
        return on_channels_last(self.dcn, channels_last(hidden_states))


def use_dcnv4(unet: nn.Module, group_width: int = 32) -> None:
    """Put DCNv4 in the place of the convolutions of all residual blocks, whose weights are lost.

    Args:
        unet: A U-Net of diffusers, with or without conditions.
        group_width: Channels of each aggregation group.

    Raises:
        ValueError: It does not divide the width of a block, or there are no residual blocks.
    """
    blocks = [module for module in unet.modules() if isinstance(module, ResnetBlock2D)]
    convs = [conv for block in blocks for conv in (block.conv1, block.conv2)]
    if not convs:
        raise ValueError(f"{type(unet).__name__}: no residual blocks of diffusers. Give one of its U-Nets.")
    widths = sorted({conv.in_channels for conv in convs})
    if group_width < 1 or any(width % group_width for width in widths):
        raise ValueError(f"group_width: expected a divisor of {', '.join(map(str, widths))}, got {group_width}.")
    for block in blocks:
        for name in ("conv1", "conv2"):
            conv = getattr(block, name)
            layer = ConvDCNv4(conv.in_channels, conv.out_channels, group_width)
            setattr(block, name, layer.to(conv.weight).train(conv.training))


def _with_parameters_of(base: type):
    """Give an `__init__(self, **fields)` the base's parameters, by which diffusers knows the fields of a config."""

    def decorate(init):
        own, stock = (inspect.signature(function).parameters for function in (init, base.__init__))
        parameters = {**stock, **{name: own[name] for name in own if own[name].kind is not own[name].VAR_KEYWORD}}
        init.__signature__ = inspect.Signature(list(parameters.values()))
        return init

    return decorate


class UNet2DDCNv4Model(UNet2DModel):
    """A `UNet2DModel` with DCNv4 in its residual blocks; saved and loaded as diffusers does it.

    Args:
        group_width: Channels of each aggregation group; divides the width of every block.
        fields: Those of `UNet2DModel`.
    """

    @register_to_config
    @_with_parameters_of(UNet2DModel)
    def __init__(self, *, group_width: int = 32, **fields):
        super().__init__(**fields)
        use_dcnv4(self, group_width)
