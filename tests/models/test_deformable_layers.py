"""DCNv3 and DCNv4 as layers for any network: every option does what it says.

With the offsets of a new layer and equal weights, a deformable convolution is a mean over its grid.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hf_models.deformable_conv import DCNv3, DCNv4

CHANNELS, GROUPS = 16, 2


def images():
    return torch.randn(2, 9, 7, CHANNELS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def mean_of_grid(value, kernel_size=3, dilation=1, remove_center=False):
    """Sum of the grid's pixels around each one, divided by the size of the whole grid; (N, H, W, C)."""
    kernel = torch.ones(CHANNELS, 1, kernel_size, kernel_size, dtype=value.dtype) / kernel_size**2
    if remove_center:
        kernel[:, :, kernel_size // 2, kernel_size // 2] = 0
    padding = dilation * (kernel_size // 2)
    out = F.conv2d(value.permute(0, 3, 1, 2), kernel, padding=padding, dilation=dilation, groups=CHANNELS)
    return out.permute(0, 2, 3, 1)


def equal_weights(kernel_size=3, remove_center=False, **options):
    """A DCNv4 whose weights are all 1 / kernel_size ** 2; a new one has zeros."""
    layer = DCNv4(CHANNELS, GROUPS, kernel_size=kernel_size, remove_center=remove_center, **options).double()
    points = kernel_size**2 - remove_center
    rows = layer.offset_mask.bias.data[: GROUPS * points * 3].view(GROUPS, points * 3)
    rows[:, points * 2 :] = 1 / kernel_size**2
    return layer


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_new_dcnv3_is_a_mean_between_projections(kernel_size):
    layer = DCNv3(CHANNELS, GROUPS, kernel_size=kernel_size).double()
    expected = layer.output_proj(mean_of_grid(layer.input_proj(images()), kernel_size))
    torch.testing.assert_close(layer(images()), expected)


@pytest.mark.parametrize(
    "grid",
    [
        {},
        {"kernel_size": 5},
        {"dilation": 2},
        {"remove_center": True},
        {"kernel_size": 5, "dilation": 2, "remove_center": True},
    ],
)
def test_dcnv4_without_projections_is_a_depthwise_convolution(grid):
    torch.testing.assert_close(equal_weights(**grid, pointwise=False)(images()), mean_of_grid(images(), **grid))


def test_offset_scale_spreads_the_grid():
    spread = equal_weights(offset_scale=2.0, pointwise=False)(images())
    torch.testing.assert_close(spread, mean_of_grid(images(), dilation=2))


def test_center_feature_scale_blends_the_value_in():
    layer = equal_weights(center_feature_scale=True, pointwise=False)
    torch.testing.assert_close(layer(images()), (mean_of_grid(images()) + images()) / 2)
    layer.center_feature_scale.bias.data[:] = torch.tensor([50.0, -50.0])  # all of the value, nothing of it
    first, second = layer(images()).chunk(GROUPS, dim=-1)
    torch.testing.assert_close(first, images().chunk(GROUPS, dim=-1)[0])
    torch.testing.assert_close(second, mean_of_grid(images()).chunk(GROUPS, dim=-1)[1])


def test_output_bias_and_depthwise_convolution_are_there_on_demand():
    assert DCNv4(CHANNELS, GROUPS).output_proj.bias is not None
    assert DCNv4(CHANNELS, GROUPS, output_bias=False).output_proj.bias is None
    assert isinstance(DCNv4(CHANNELS, GROUPS).depthwise_conv, nn.Identity)
    assert DCNv4(CHANNELS, GROUPS, depthwise_kernel_size=5).depthwise_conv.kernel_size == (5, 5)


@pytest.mark.parametrize("layer_class", [DCNv3, DCNv4])
def test_what_no_layer_can_be_is_refused(layer_class):
    with pytest.raises(ValueError, match=r"groups must divide channels \(16\), got 3"):
        layer_class(CHANNELS, 3)
    with pytest.raises(ValueError, match=r"kernel_size must be odd .*, got 4"):
        layer_class(CHANNELS, GROUPS, kernel_size=4)
