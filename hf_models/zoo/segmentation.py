"""Published segmentation checkpoints: a backbone of ours under a head, trained on a data set of its own."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from .checkpoint import PublishedCheckpoint, labels_kwargs
from .segmentation_labels import head_names
from .segmentation_recipe import SegmentationRecipe

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig


@dataclass(frozen=True, kw_only=True)
class PublishedSegmenter(PublishedCheckpoint):
    """One published segmentation checkpoint; what is not said here is as in [`PublishedCheckpoint`].

    Args:
        head: `model_type` of the config, without the prefix of its variant: `"upernet"`, `"mask2former"` or
            `"segformer_head"`.
        head_kwargs: Where the head's config differs from the defaults of its class.
        num_labels: Number of outputs by the authors' config; that of the weights holds.
        label_set: Key of the classes' names, for [`head_names`].
        preprocessing: The recipe of the test.
        parameters: Exact number for `num_labels`, with the auxiliary head if there is one.
        reduce_labels: Whether the data set's masks count from 1, with 0 for pixels to ignore.
    """

    section: ClassVar = "segmentation"
    metrics: ClassVar = {"miou": "mIoU, single scale", "miou_ms": "mIoU, several scales and flips"}
    hub_metric: ClassVar = "mean_iou"

    head: str
    preprocessing: SegmentationRecipe
    head_kwargs: dict[str, Any] = field(default_factory=dict)
    reduce_labels: bool = False

    @classmethod
    def from_json(cls, entry: dict[str, Any], preprocessing: dict[str, Any]) -> "PublishedSegmenter":
        # Mapillary Vistas with merged classes is tested on Cityscapes
        test_set = "Cityscapes" if entry["label_set"] == "cityscapes" else entry["training_data"][-1]
        recipe = SegmentationRecipe.from_dict(entry["preprocessing"])
        return cls(**entry | {"preprocessing": recipe, "test_set": test_set})

    @property
    def network(self) -> tuple[str, ...]:
        return (self.family, self.head)

    @property
    def weights_tell_num_labels(self) -> bool:
        """Several configs of the authors state more classes than their data sets have, so the weights decide."""
        return True

    def config(self, num_labels: int | None = None) -> "PreTrainedConfig":
        """The config of this checkpoint, with the names of its classes.

        Args:
            num_labels: Number of classes instead of the published one.
        """
        from transformers import AutoConfig

        backbone = AutoConfig.for_model(self.family, **self.config_kwargs)
        backbone.out_features = backbone.stage_names[1:]  # all but the stem
        num_labels = num_labels or self.num_labels
        names = head_names(self.label_set, num_labels)
        return AutoConfig.for_model(
            f"aligned_{self.head}" if self.preprocessing.align_corners else self.head,
            backbone_config=backbone,
            segmentation_recipe=self.preprocessing.to_dict(),
            **self.head_kwargs,
            **(labels_kwargs(names) if names else {"num_labels": num_labels}),
        )

    def image_processor(self) -> "BaseImageProcessor":
        """A stock image processor that prepares images nearly as the authors do; see [`stock_image_processor`]."""
        return stock_image_processor(self.preprocessing, self.head, self.reduce_labels)


def stock_image_processor(recipe: SegmentationRecipe, head: str, reduce_labels: bool = False) -> "BaseImageProcessor":
    """A processor for pipelines (Pillow backend).

    It differs from the recipe, which [`semantic_scores`] follows: Pillow smooths when it shrinks; the image is seen
    whole and at one scale; sides are resized to multiples of 32 in one step for Mask2Former (in which whole images
    may come out 32 pixels larger or smaller) and not at all for the other heads.

    Args:
        recipe: The recipe.
        head: `model_type` of the model.
        reduce_labels: Whether masks count from 1, with 0 for pixels to ignore.
    """
    from transformers import SegformerImageProcessorPil

    from ..image_processing_mask2former import SemanticMask2FormerImageProcessor

    shared = {
        "size": {"shortest_edge": recipe.short_edge, "longest_edge": recipe.long_edge},
        "resample": 2,  # bilinear
        "image_mean": list(recipe.mean),
        "image_std": list(recipe.std),
        "do_reduce_labels": reduce_labels,
    }
    if head == "mask2former":
        size_divisor = recipe.size_divisor or 32
        return SemanticMask2FormerImageProcessor(**shared, size_divisor=size_divisor, ignore_index=255)
    return SegformerImageProcessorPil(**shared)
