"""What the deformable operator is measured against."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from .implementations import Implementation

try:
    from torchvision.ops import deform_conv2d
except (ImportError, RuntimeError):  # not installed, or built for another PyTorch
    deform_conv2d = None

MISSING_ATTENTION = (
    "torch-ms-deform-attn is not installed, so its rows are left out; "
    "`pip install --no-build-isolation torch-ms-deform-attn` compiles it"
)


def grid_sample_core(value: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The 3x3 aggregation in the steps of the published PyTorch cores: what runs where no operator is compiled.

    Half precision is computed in float32, as autocast does with `grid_sample`.

    Args:
        value: (N, H, W, G, D).
        offset: (N, H, W, G, 9, 2) in pixels.
        weight: (N, H, W, G, 9), used as it is.

    Returns:
        (N, H, W, G * D).
    """
    batch, height, width, groups, channels = value.shape
    value, offset, weight, dtype = value.float(), offset.float(), weight.float(), value.dtype
    points = torch.arange(3.0, device=value.device) - 1
    column = torch.arange(float(width), device=value.device)[:, None, None]
    row = torch.arange(float(height), device=value.device)[:, None, None, None]
    x = column + points.repeat_interleave(3) + offset[..., 0]
    y = row + points.repeat(3) + offset[..., 1]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)  # (N, H, W, G, 9, 2)
    grid = grid.permute(0, 3, 1, 2, 4, 5).reshape(batch * groups, height * width, 9, 2)
    images = value.permute(0, 3, 4, 1, 2).reshape(batch * groups, channels, height, width)
    samples = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weights = weight.permute(0, 3, 1, 2, 4).reshape(batch * groups, 1, height * width, 9)
    summed = (samples * weights).sum(-1)  # (N G, D, H W)
    return summed.view(batch, groups * channels, height, width).permute(0, 2, 3, 1).contiguous().to(dtype)


def deformable_attention() -> Callable | None:
    """The compiled operator of torch-ms-deform-attn, `None` where that is not installed."""
    try:
        from torch_ms_deform_attn import ms_deform_attn
    except ImportError:
        return None
    return ms_deform_attn


def peers(value: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor) -> list[Implementation]:
    """What there is to compare with, for inputs as those of [`grid_sample_core`]."""
    found = [Implementation("grid_sample", grid_sample_core, (value, offset, weight))]
    if deformable_attention() and value.device.type == "cpu":
        found.append(_attention(value, offset, weight))
    if deform_conv2d is not None:
        found.append(_dcn_v2(value, offset, weight))
    found.append(_depthwise(value))
    if value.shape[1] % 7 == value.shape[2] % 7 == 0:
        found.append(_window_attention(value))
    return found


def _attention(value, offset, weight) -> Implementation:
    """The aggregation as deformable attention of one level, with the locations given.

    It computes half precision in float32; locations in half precision would be wrong by up to half a pixel.
    """
    operator = deformable_attention()
    height, width = value.shape[1:3]
    points = torch.arange(3.0) - 1
    x = torch.arange(float(width))[:, None, None] + points.repeat_interleave(3) + offset[..., 0].float()
    y = torch.arange(float(height))[:, None, None, None] + points.repeat(3) + offset[..., 1].float()
    locations = torch.stack(((x + 0.5) / width, (y + 0.5) / height), dim=-1)  # (N, H, W, G, 9, 2)
    sizes, starts = torch.tensor([[height, width]]), torch.tensor([0])

    def function(value, locations, weight):
        # (N, H, W, G, ...) -> (N, H W, G, ...), and one level before the points
        queries = locations.flatten(1, 2).unsqueeze(3), weight.float().flatten(1, 2).unsqueeze(3)
        out = operator(value.float().flatten(1, 2), sizes, starts, *queries)
        return out.unflatten(1, (height, width)).to(value.dtype)

    return Implementation("torch-ms-deform-attn", function, (value, locations, weight))


def _dcn_v2(value, offset, weight) -> Implementation:
    """The aggregation as a depthwise DCNv2 whose kernel is 1 everywhere, with its inputs in its layout.

    It computes half precision in float32, of which torchvision has no operator in bfloat16.
    """
    row_by_row = torch.arange(9).view(3, 3).T.flatten()  # our points go column by column
    # (N, H, W, G, 9, 2) -> (N, G * 9 * 2, H, W), y first
    offset = offset[..., row_by_row, :].flip(-1).flatten(3).permute(0, 3, 1, 2).contiguous()
    weight = weight[..., row_by_row].flatten(3).permute(0, 3, 1, 2).contiguous()  # (N, G * 9, H, W)
    images = value.flatten(3).permute(0, 3, 1, 2).contiguous()  # (N, C, H, W)
    kernel = torch.ones(images.shape[1], 1, 3, 3, device=value.device)

    def function(images, offset, weight):
        out = deform_conv2d(images.float(), offset.float(), kernel, padding=1, mask=weight.float())
        return out.permute(0, 2, 3, 1).to(images.dtype)  # (N, C, H, W) -> (N, H, W, C)

    return Implementation("DCNv2 (torchvision)", function, (images, offset, weight))


def _depthwise(value) -> Implementation:
    """A 7x7 depthwise convolution, channels last, that reads and writes as many channels."""
    image = value.flatten(3).permute(0, 3, 1, 2)  # (N, H, W, C) seen as (N, C, H, W)
    channels = image.shape[1]
    kernel = torch.randn(channels, 1, 7, 7, device=value.device).to(value.dtype)
    return Implementation(
        "depthwise 7x7",
        lambda image, kernel: F.conv2d(image, kernel, padding=3, groups=channels),
        (image, kernel),
        False,
    )


def _window_attention(value) -> Implementation:
    """Attention inside 7x7 windows, a head for each group; queries, keys and values lie in windows already."""
    batch, height, width, groups, channels = value.shape
    shape = (batch * (height // 7) * (width // 7), groups, 49, channels)
    inputs = tuple(torch.randn(shape, device=value.device).to(value.dtype) for _ in range(3))
    return Implementation("window attention 7x7", F.scaled_dot_product_attention, inputs, False)
