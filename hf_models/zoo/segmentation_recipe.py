"""How the authors of a segmentation checkpoint prepare an image and put its scores together."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

MAX_SIDE, MAX_SCALE = 10_000, 10


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

    def __post_init__(self):
        """Refuse, with a ValueError or a TypeError, what no image can be prepared by; configs come from anywhere."""
        windows = [*(self.crop_size or ()), *(self.stride or ())]
        sides = [self.short_edge, self.long_edge, 1 if self.size_divisor is None else self.size_divisor, *windows]
        if not all(type(side) is int and 0 < side <= MAX_SIDE for side in sides) or len(windows) not in (0, 4):
            raise ValueError(f"segmentation_recipe: sides must be 1 to {MAX_SIDE} pixels, got {sides}")
        usual = all(-100 <= value <= 100 for value in self.mean) and all(0 < value <= 100 for value in self.std)
        if not len(self.mean) == len(self.std) == 3 or not usual:
            raise ValueError(f"segmentation_recipe: mean and std must be 3 numbers, got {self.mean} and {self.std}")
        if not self.scales or not all(0 < scale <= MAX_SCALE for scale in self.scales):
            raise ValueError(f"segmentation_recipe: scales must be above 0 to {MAX_SCALE}, got {self.scales}")
        if not isinstance(self.align_corners, bool):
            raise ValueError(f"segmentation_recipe: align_corners must be true or false, got {self.align_corners!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SegmentationRecipe":
        """The inverse of `to_dict`.

        Raises:
            TypeError: There is a name that no recipe has, or a value of another type.
            ValueError: A value is out of range.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"segmentation_recipe: expected an object, got {values!r}")
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise TypeError(f"segmentation_recipe: unknown {', '.join(sorted(unknown))}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
