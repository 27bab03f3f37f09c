"""The operator of DCNv3 and DCNv4: gather K bilinear samples at learned positions, add them up with learned weights.

DCNv3: https://arxiv.org/abs/2211.05778 (InternImage); DCNv4: https://arxiv.org/abs/2401.06197 (FlashInternImage).
"""

import math

import torch
from torch.nn import functional as F

from .execution import is_observed, is_recording, is_transformed
from .hub_kernels import get_function, set_reference

Pair = int | tuple[int, int]


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _output_size(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1


def _check(value, offset, weight, kernel_size, stride, padding, dilation, remove_center) -> None:
    if value.ndim != 5:
        raise ValueError(f"value: expected (N, H, W, G, D), got {tuple(value.shape)}")
    height, width = (
        _output_size(*sizes) for sizes in zip(value.shape[1:3], kernel_size, stride, padding, dilation, strict=True)
    )
    points = math.prod(kernel_size) - remove_center
    expected = (value.shape[0], height, width, value.shape[3], points)
    if tuple(offset.shape) != (*expected, 2):
        raise ValueError(f"offset: expected {(*expected, 2)}, got {tuple(offset.shape)}")
    if tuple(weight.shape) != expected:
        raise ValueError(f"weight: expected {expected}, got {tuple(weight.shape)}")
    if not value.dtype == offset.dtype == weight.dtype:
        dtypes = f"{value.dtype}, {offset.dtype}, {weight.dtype}"
        raise TypeError(f"value, offset and weight: expected one dtype, got {dtypes}")


def deformable_aggregate(
    value: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    *,
    kernel_size: Pair,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    offset_scale: float = 1.0,
    remove_center: bool = False,
    softmax: bool = False,
) -> torch.Tensor:
    """Sum K weighted bilinear samples of `value` for each output position and group.

    Sample k of the output at (row, column) reads `value` at

        x = column * stride - padding + centre + (k_x * dilation - centre + offset_x) * offset_scale

    (y alike; centre = dilation * (kernel_size - 1) // 2), in pixels of the unpadded input; pixels outside are zero.
    Points run column by column: k = k_x * kernel_height + k_y. A sample whose position is not finite adds nothing.

    A compiled kernel computes it where there is one (see `hf-models kernels status`), else the PyTorch reference.
    Either can be differentiated and transformed in every way that PyTorch has (see docs/kernels.md).

    Args:
        value: (N, H, W, G, D), the features in G groups of D channels.
        offset: (N, H_out, W_out, G, K, 2), learned displacement (x, y) of each sample in pixels. May be strided.
        weight: (N, H_out, W_out, G, K), the weight of each sample. May be strided.
        kernel_size: (height, width) or one number for both, as for `stride`, `padding` and `dilation`.
            K = height * width, less one with `remove_center`.
        offset_scale: Factor on the sampling grid and the offsets.
        remove_center: Leave out the kernel's centre point (odd kernels).
        softmax: Normalise `weight` over K first (DCNv3).

    Returns:
        (N, H_out, W_out, G * D) in the dtype of `value`; arithmetic is in float32 at least.

    Raises:
        ValueError: A shape does not fit the others.
        TypeError: The dtypes differ.
    """
    kernel = get_function("deformable-conv", "deformable_aggregate", value.device.type, value, offset, weight)
    return (kernel or deformable_aggregate_reference)(
        value,
        offset,
        weight,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        offset_scale=offset_scale,
        remove_center=remove_center,
        softmax=softmax,
    )


def deformable_aggregate_reference(
    value: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    *,
    kernel_size: Pair,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    offset_scale: float = 1.0,
    remove_center: bool = False,
    softmax: bool = False,
) -> torch.Tensor:
    """`deformable_aggregate` in PyTorch alone: what a kernel must compute, and what runs where there is none."""
    kernel_size, stride, padding, dilation = map(_pair, (kernel_size, stride, padding, dilation))
    _check(value, offset, weight, kernel_size, stride, padding, dilation, remove_center)
    dtype = torch.promote_types(value.dtype, torch.float32)
    if softmax:
        weight = weight.softmax(dim=-1, dtype=dtype)
    x, y = sample_positions(
        offset.to(dtype),
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        offset_scale=offset_scale,
        remove_center=remove_center,
    )
    return bilinear_sum(value.to(dtype), x, y, weight.to(dtype)).to(value.dtype)


def sample_positions(
    offset: torch.Tensor,
    *,
    kernel_size: Pair,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    offset_scale: float = 1.0,
    remove_center: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where `deformable_aggregate` samples, given the arguments of the same names.

    Returns:
        The x and the y of every sample in pixels of the unpadded input, (N, H_out, W_out, G, K) each.
    """
    kernel_size, stride, padding, dilation = map(_pair, (kernel_size, stride, padding, dilation))
    height_out, width_out = offset.shape[1:3]
    kernel_y, kernel_x = (
        torch.arange(size, device=offset.device, dtype=offset.dtype) * step - step * (size - 1) // 2
        for size, step in zip(kernel_size, dilation, strict=True)
    )
    kernel_x, kernel_y = (axis.flatten() for axis in torch.meshgrid(kernel_x, kernel_y, indexing="ij"))
    points = torch.stack((kernel_x, kernel_y), dim=-1)  # (K, 2) relative to the kernel's centre, x outermost
    if remove_center:
        centre = points.shape[0] // 2
        points = torch.cat((points[:centre], points[centre + 1 :]))
    centre_y, centre_x = (
        torch.arange(size_out, device=offset.device, dtype=offset.dtype) * step + spread * (size - 1) // 2 - pad
        for size_out, size, step, pad, spread in zip(
            (height_out, width_out), kernel_size, stride, padding, dilation, strict=True
        )
    )
    x, y = ((points + offset) * offset_scale).unbind(dim=-1)
    return centre_x[:, None, None] + x, centre_y[:, None, None, None] + y


def bilinear_sum(value, x, y, weight):
    """Sum over K of `weight` times the bilinear sample of `value` at (x, y): (N, H_out, W_out, G * D)."""
    if is_recording():
        return _sum_of_grid_samples(value, x, y, weight)
    _, height, width, groups, channels = value.shape
    batch, height_out, width_out, _, points = x.shape
    # (bags, K): a bag of samples for each position and group, as integers of rank 7 are what OpenVINO gets wrong
    x, y, weight = (tensor.reshape(-1, points) for tensor in (x, y, weight))
    sampled = (x > -1) & (y > -1) & (x < width) & (y < height)
    x, y = torch.where(sampled, x, 0), torch.where(sampled, y, 0)
    left, top = x.floor(), y.floor()
    right_share, bottom_share = x - left, y - top
    corner = torch.arange(2, device=value.device).view(2, 1, 1)
    # the columns left and right of each sample and the rows above and below it, (2, bags, K) each
    pixel_x, pixel_y = left.long() + corner, top.long() + corner
    share_x, share_y = torch.stack((1 - right_share, right_share)), torch.stack((1 - bottom_share, bottom_share))
    exists_x, exists_y = (pixel_x >= 0) & (pixel_x < width), (pixel_y >= 0) & (pixel_y < height) & sampled

    # A table with a row of D channels for each (image, pixel, group), and a last row of zeros for all pixels outside:
    # multiplying a real pixel by zero instead would let its NaN or infinity through.
    table = torch.cat((value.reshape(-1, channels), value.new_zeros(1, channels)))
    bag = torch.arange(x.shape[0], device=value.device)[:, None]
    # (bags, 1): the row of the first pixel of its image and group
    first = bag // (height_out * width_out * groups) * (height * width * groups) + bag % groups
    # all four pixels around each sample, (2, 2, bags, K): below outermost
    exists = exists_y[:, None] & exists_x
    row = torch.where(exists, first + (pixel_y[:, None] * width + pixel_x) * groups, table.shape[0] - 1)
    share = torch.where(exists, (share_y * weight)[:, None] * share_x, 0)

    row, share = (tensor.flatten(0, 1).movedim(0, -2).flatten(1) for tensor in (row, share))  # (bags, 4 K)
    # What `embedding_bag` does, which has neither second derivatives nor forward ones, and no FLOP counter knows it.
    if is_transformed() or is_observed():
        out = torch.bmm(share[:, None], table[row])
    else:
        out = F.embedding_bag(row, table, per_sample_weights=share, mode="sum")
    return out.view(batch, height_out, width_out, groups * channels)


def _sum_of_grid_samples(value, x, y, weight):
    """The same by an operator that other runtimes have; onnxruntime computes it in half of the time."""
    _, height, width, _, _ = value.shape
    x, y = torch.where((x > -1) & (x < width), x, -2.0), torch.where((y > -1) & (y < height), y, -2.0)
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    # (N, H_out, W_out, G, K, 2) -> (N, G, H_out, W_out, K, 2) -> (N * G, H_out, W_out * K, 2)
    grid = grid.permute(0, 3, 1, 2, 4, 5).flatten(0, 1).flatten(2, 3)
    images = value.permute(0, 3, 4, 1, 2).flatten(0, 1)  # (N, H, W, G, D) -> (N, G, D, H, W) -> (N * G, D, H, W)
    sampled = F.grid_sample(images, grid, align_corners=False)  # (N * G, D, H_out, W_out * K)
    weight = weight.permute(0, 3, 1, 2, 4).flatten(0, 1)[:, None]  # (N, H_out, W_out, G, K) -> (N * G, 1, H_out, ...)
    total = (sampled.view(*sampled.shape[:3], -1, weight.shape[-1]) * weight).sum(dim=-1)  # (N * G, D, H_out, W_out)
    # (N * G, D, ...) -> (N, G * D, H_out, W_out) -> (N, H_out, W_out, G * D)
    return total.view(-1, value.shape[3] * value.shape[4], *total.shape[2:]).permute(0, 2, 3, 1)


set_reference("deformable-conv", deformable_aggregate_reference)
