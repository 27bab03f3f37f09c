"""Random crops of photos in batches, which a teacher and its student see alike."""

import math

import torch
from torch.nn import functional as F

SCALE = (0.35, 1.0)  # area, as a share of the photo's
RATIO = (3 / 4, 4 / 3)  # width by height


def random_crops(count: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Where to crop and whether to mirror.

    Returns:
        (count, 5): left, top, right and bottom, where 0 and 1 are the sides of the photo, and 1 to mirror or 0.
    """
    draws = torch.rand(count, 5, generator=generator)
    area = SCALE[0] + (SCALE[1] - SCALE[0]) * draws[:, 0]
    low, high = map(math.log, RATIO)
    ratio = (low + (high - low) * draws[:, 1]).exp()
    sides = torch.stack(((area * ratio).sqrt(), (area / ratio).sqrt()), dim=-1).clamp(max=1)
    start = draws[:, 2:4] * (1 - sides)
    return torch.cat((start, start + sides, (draws[:, 4:] < 0.5).float()), dim=-1)


def crop(images: torch.Tensor, crops: torch.Tensor, size: int) -> torch.Tensor:
    """Cut out and resize, by bicubic interpolation; photos of twice the size or more are averaged.

    Args:
        images: (N, C, H, W), uint8.
        crops: (N, 5), from [`random_crops`].
        size: Side of what is returned.

    Returns:
        (N, C, size, size), uint8.
    """
    start, end, mirrored = crops[:, :2], crops[:, 2:4], crops[:, 4]
    scale, centre = end - start, start + end - 1  # of a map from -1 to 1 in both directions
    sign = torch.stack((1 - 2 * mirrored, torch.ones_like(mirrored)), dim=-1)
    theta = torch.cat(((scale * sign).diag_embed(), centre.unsqueeze(-1)), dim=-1)  # (N, 2, 3)
    samples = 1 + (2 * size <= images.shape[-1])  # of a pixel, in both directions
    grid = F.affine_grid(theta, (len(images), images.shape[1], samples * size, samples * size), align_corners=False)
    pixels = F.grid_sample(images.float(), grid, mode="bicubic", padding_mode="border", align_corners=False)
    return F.avg_pool2d(pixels, samples).round().clamp(0, 255).byte()
