"""How the authors of a segmentation checkpoint prepare an image and put its scores together."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class SegmentationRecipe:
    """The test pipeline of mmseg, as far as the published checkpoints differ in it.

    Saved as `segmentation_recipe` in the config of each converted checkpoint.

    Args:
        short_edge: Pixels that the short side is resized to, unless the long one would exceed `long_edge`.
        long_edge: Limit for the long side in pixels.
        size_divisor: Both sides are then resized to the next multiple of this, whatever the aspect ratio; `None`
            leaves them.
        mean: Mean of each channel, for values in [0, 1]; `std` likewise.
        crop_size: Height and width of the windows that slide over the image; `None` for the whole image at once.
        stride: Pixels between two windows, vertically and horizontally.
        scales: Factors on both edges in the test at several scales, each with and without a flip.
        align_corners: Whether scores are resized with aligned corners.
    """

    short_edge: int = 512
    long_edge: int = 2048
    size_divisor: int | None = 32
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_size: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    align_corners: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SegmentationRecipe":
        """The inverse of `to_dict`.

        Raises:
            TypeError: There is a name that no recipe has.
        """
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise TypeError(f"segmentation_recipe: unknown {', '.join(sorted(unknown))}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
