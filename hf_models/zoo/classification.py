"""Published classifiers: a backbone of ours with a linear classifier."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .checkpoint import PublishedCheckpoint, labels_kwargs
from .labels import label_names

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig


@dataclass(frozen=True)
class Preprocessing:
    """How the authors prepare an image to evaluate a classifier.

    Args:
        mode: `"shortest_edge"` makes the short side `resize` pixels long and cuts out the central square; `"warp"`
            resizes both sides to `size`, whatever the aspect ratio.
        size: Side in pixels of the square that the model sees.
        interpolation: A Pillow resampling filter, in lower case.
        mean: Mean of each channel, for values in [0, 1]; `std` likewise.
    """

    mode: str
    size: int
    interpolation: str
    mean: list[float]
    std: list[float]
    resize: int | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedClassifier(PublishedCheckpoint):
    """One published classifier; what is not said here is as in [`PublishedCheckpoint`].

    Args:
        label_set: Key of the classes' names, for [`label_names`].
        parameters: Exact number, for RepLKNet before merging.
        preprocessing: How the authors prepare an image.
    """

    section: ClassVar = "models"
    metrics: ClassVar = {"top1": "Top-1 accuracy", "top5": "Top-5 accuracy"}
    hub_metric: ClassVar = "accuracy"

    preprocessing: Preprocessing
    test_set: str = "ImageNet-1K"

    @classmethod
    def from_json(cls, entry: dict[str, Any], preprocessing: dict[str, Any]) -> "PublishedClassifier":
        return cls(**entry | {"preprocessing": Preprocessing(**preprocessing | entry["preprocessing"])})

    @property
    def network(self) -> tuple[str, ...]:
        return (self.family,)

    def config(self, num_labels: int | None = None) -> "PreTrainedConfig":
        """The config of this checkpoint, with the names of its classes.

        Args:
            num_labels: Number of classes instead of the published one. Where neither is known the config has none.
        """
        from transformers import AutoConfig

        labels = {"num_labels": num_labels or self.num_labels or 0}
        if self.label_set and num_labels in (None, self.num_labels):
            labels = labels_kwargs(label_names(self.label_set))
        return AutoConfig.for_model(self.family, **self.config_kwargs, image_size=self.preprocessing.size, **labels)

    def image_processor(self) -> "BaseImageProcessor":
        """An image processor that prepares images as the authors do."""
        from PIL.Image import Resampling

        from ..image_processing_imagenet import ImageNetImageProcessor

        recipe = self.preprocessing
        square = {"height": recipe.size, "width": recipe.size}
        return ImageNetImageProcessor(
            size={"shortest_edge": recipe.resize} if recipe.mode == "shortest_edge" else square,
            do_center_crop=recipe.mode == "shortest_edge",
            crop_size=square,
            resample=Resampling[recipe.interpolation.upper()],
            image_mean=recipe.mean,
            image_std=recipe.std,
        )
