"""RoIAlign: features of regions of interest, by bilinear samples (https://arxiv.org/abs/1703.06870, section 3)."""

import torch
from torch.nn import functional as F

from .execution import is_transformed
from .hub_kernels import get_function

try:
    from torchvision.ops import roi_align as torchvision_roi_align
except (ImportError, RuntimeError):  # not installed, or built for another PyTorch
    torchvision_roi_align = None

PIXELS_AT_ONCE = 1 << 22  # bounds the memory that the reference takes, to about 100 MB


def roi_align(features: torch.Tensor, rois: torch.Tensor, output_size: int, spatial_scale: float) -> torch.Tensor:
    """Divide each region into bins, and average bilinear samples of the features in each of them.

    Regions are aligned: the centre of the first pixel of an image lies at 0.5. A bin has ceil(side of the region /
    output_size) samples in each direction, about one a pixel. A sample further than one pixel outside the features is
    zero, and takes part in the average.

    A compiled kernel computes it where there is one (see `hf-models kernels status`), else torchvision, else the
    PyTorch reference.

    Args:
        features: (batch_size, channels, height, width).
        rois: (N, 5): the index of the image, then the left, top, right and bottom edge in pixels of the image. Regions
            without area give zeros. They have no gradient.
        output_size: Bins in each direction.
        spatial_scale: Pixels of the features for each pixel of the image.

    Returns:
        (N, channels, output_size, output_size) in the dtype of `features`; arithmetic is in float32 at least.

    Raises:
        ValueError: A tensor has another shape.
    """
    if features.ndim != 4:
        raise ValueError(f"features: expected (batch_size, channels, height, width), got {tuple(features.shape)}")
    if rois.ndim != 2 or rois.shape[1] != 5:
        raise ValueError(f"rois: expected (N, 5), with the index of the image first, got {tuple(rois.shape)}")
    dtype = torch.promote_types(features.dtype, torch.float32)
    rois = rois.detach().to(dtype).nan_to_num(0, 0, 0)  # where a network overflows: numbers of samples are integers
    kernel = get_function("detection-ops", "roi_align", features.device.type, features, rois)
    if kernel is not None:
        return kernel(features, rois, output_size, spatial_scale)
    if torchvision_roi_align is not None and not is_transformed():  # which it does not know
        size = (output_size, output_size)
        pooled = torchvision_roi_align(features.to(dtype), rois, size, spatial_scale, sampling_ratio=-1, aligned=True)
    else:
        pooled = roi_align_reference(features.to(dtype), rois, output_size, spatial_scale)
    return pooled.to(features.dtype)


def roi_align_reference(
    features: torch.Tensor, rois: torch.Tensor, output_size: int, spatial_scale: float
) -> torch.Tensor:
    """`roi_align` in PyTorch alone.

    The samples of a bin lie on a grid, and so its average is a sum over few rows and columns of pixels: pixel (y, x)
    has the share that row y has of the bin's rows, times the share that column x has of its columns.
    """
    _, channels, height, width = features.shape
    if len(rois) == 0:
        return features[:0, :, :1, :1].expand(0, channels, output_size, output_size)
    table = features.permute(0, 2, 3, 1).reshape(-1, channels)  # (B, C, H, W) -> (B * H * W, C)
    edges = rois[:, 1:] * spatial_scale - 0.5
    samples = ((edges[:, 2:] - edges[:, :2]) / output_size).ceil().clamp(min=0)
    most = (int(samples.amax()) + 1) ** 2 * output_size**2  # pixels that a region may have a share of
    pooled = []
    for image, edge, sample in zip(
        *(tensor.split(max(PIXELS_AT_ONCE // most, 1)) for tensor in (rois[:, 0].long(), edges, samples)), strict=True
    ):
        column, column_share = _shares(edge[:, 0], edge[:, 2], sample[:, 0], output_size, width)
        row, row_share = _shares(edge[:, 1], edge[:, 3], sample[:, 1], output_size, height)
        row = row + image[:, None, None] * height
        # (n, bins, K) of rows and columns -> (n, bins of rows, bins of columns, K rows, K columns)
        pixel = row[:, :, None, :, None] * width + column[:, None, :, None, :]
        share = row_share[:, :, None, :, None] * column_share[:, None, :, None, :]
        has_share = share != 0
        counts, pixel, share = has_share.sum(dim=(3, 4)).flatten(), pixel[has_share], share[has_share]
        if is_transformed():  # `embedding_bag` has no forward derivatives, and no rule for vmap
            bin_of_pixel = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
            bins = table.new_zeros(len(counts), channels).index_add(0, bin_of_pixel, table[pixel] * share[:, None])
        else:
            ends = F.pad(counts.cumsum(dim=0), (1, 0))
            bins = F.embedding_bag(
                pixel, table, ends, per_sample_weights=share, mode="sum", include_last_offset=True
            )  # (n * bins * bins, C)
        # (n, bins, bins, C) -> (n, C, bins, bins)
        pooled.append(bins.view(len(image), output_size, output_size, channels).permute(0, 3, 1, 2))
    return torch.cat(pooled)


def _shares(
    start: torch.Tensor, end: torch.Tensor, samples: torch.Tensor, bins: int, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which pixels of one axis the bins of each region read, and the share that each has of its bin.

    Args:
        start: (N,), where the regions begin, with the centre of pixel i at i.
        end: (N,), where they end.
        samples: (N,), of each bin; 0 for a region without area.
        bins: Number of bins.
        size: Number of pixels.

    Returns:
        Indices of pixels and their shares, (N, bins, K) each.
    """
    start, bin_size, samples = (tensor[:, None, None] for tensor in (start, (end - start) / bins, samples))
    most = int(samples.amax().clamp(min=1))
    steps = torch.arange(most + 1, device=start.device)
    # (N, bins, most)
    place = torch.arange(bins, device=start.device)[:, None] + (steps[:-1] + 0.5) / samples.clamp(min=1)
    position = start + place * bin_size
    counts = (steps[:-1] < samples) & (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    # samples are a pixel apart at most: they touch `most + 1` pixels, from the one before the first sample
    pixel = position[..., :1].floor() + steps
    share = (1 - (position[..., None] - pixel[..., None, :]).abs()).clamp(min=0)  # (N, bins, most, most + 1)
    share = (share * counts[..., None]).sum(dim=2) / samples.clamp(min=1)
    return pixel.clamp(max=size - 1).long(), share
