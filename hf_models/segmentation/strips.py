"""Class scores at the size of an image, a few rows at a time: all of them at once would take gigabytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

STRIP = 1 << 22  # numbers in a strip: 16 MB


@dataclass(frozen=True)
class View:
    """What a model says of an image that it saw once, at one size.

    Args:
        scores: (1, num_labels, h, w) in float32, at the resolution of the model's last layer.
        size: Height and width of the model's input, which the scores are resized to first.
        align_corners: How they are.
    """

    scores: torch.Tensor
    size: tuple[int, int]
    align_corners: bool = False

    def probabilities(self, rows: slice, size: tuple[int, int], align_corners: bool) -> torch.Tensor:
        """The softmax of the scores, resized to their input and then to the image: some rows of it.

        Args:
            rows: Which.
            size: Height and width of the image.
            align_corners: How to resize to the image.

        Returns:
            (num_labels, rows, width).
        """
        above, below, _ = _neighbours(rows, self.size[0], size[0], align_corners)
        band = slice(above[0].item(), below[-1].item() + 1)
        scores = _resized(self.scores, self.scores.shape[2], 0, band, self.size, self.align_corners)
        return _resized(scores, self.size[0], band.start, rows, size, align_corners).softmax(dim=1)[0]


def strips(shape: Sequence[int]) -> Iterator[slice]:
    """The rows of scores (num_labels, height, width) in slices of about `STRIP` numbers.

    Whatever is computed at the size of the image is computed in these slices, so that it is the same to the last bit:
    PyTorch rounds differently near the end of a tensor.
    """
    num_labels, height, width = shape
    step = max(STRIP // (num_labels * width), 1)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _resized(
    band: torch.Tensor, height: int, top: int, rows: slice, size: tuple[int, int], align_corners: bool
) -> torch.Tensor:
    """Some rows of what `F.interpolate` would return.

    Args:
        band: (1, num_labels, h, w), those rows of the whole that are needed.
        height: Number of rows of the whole.
        top: The first row of the band.
        rows: Which rows of the result.
        size: Height and width of the whole result.
        align_corners: As for `F.interpolate`.

    Returns:
        (1, num_labels, rows, width).
    """
    above, below, fraction = _neighbours(rows, height, size[0], align_corners)
    band = torch.lerp(band[:, :, above - top], band[:, :, below - top], fraction[:, None].to(band.device))
    size = (len(fraction), size[1])
    return F.interpolate(band, size=size, mode="bilinear", align_corners=align_corners)


def _neighbours(
    rows: slice, height: int, new_height: int, align_corners: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each of the new rows the old ones above and below, and how far it is on the way between them.

    In float32, as `F.interpolate` computes it, so that both agree but for the last bits.
    """
    position = torch.arange(rows.start, rows.stop, dtype=torch.float32)
    if align_corners:
        position *= (height - 1) / max(new_height - 1, 1)
    else:
        position = ((position + 0.5) * (height / new_height) - 0.5).clamp(min=0)
    above = position.long().clamp(max=height - 1)
    return above, (above + 1).clamp(max=height - 1), position - above
