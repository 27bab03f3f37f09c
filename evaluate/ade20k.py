"""`hf-models evaluate ade20k`: mIoU, mAcc and aAcc as mmsegmentation defines them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from hf_models.errors import InputError
from hf_models.inference.images import read_image
from hf_models.inference.names import model_folder
from hf_models.segmentation import recipe_of, segmenter_class, semantic_labels
from hf_models.zoo.segmentation_recipe import SegmentationRecipe

from .checkpoint import Loaded, load
from .data.ade20k import NUM_LABELS, check_images, open_ade20k, read_mask
from .data.images import Sample, Selection
from .evaluation import Evaluation, Outcome
from .machine import check_choice
from .run import run
from .segmentation_metrics import areas, metrics
from .settings import Settings

RECORD = np.dtype("<u4")  # an image has fewer than 2**32 pixels


@dataclass(frozen=True)
class Inference:
    """How the model looks at an image, where it differs from the recipe of its authors; see [`semantic_labels`].

    Args:
        mode: "whole" or "slide"; `None` for what the recipe says.
        crop: Side of the windows of "slide"; `None` for the recipe's, or 512.
        stride: From one window to the next; `None` for the recipe's, or two thirds of `crop`.
        scales: Factors of the size that the recipe resizes to.
        flip: Show each scale mirrored too.
    """

    mode: str | None = None
    crop: int | None = None
    stride: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def check(self) -> None:
        """Raise an [`InputError`] for what cannot be done."""
        check_choice("mode", [self.mode or "whole"], ("whole", "slide"))
        if (self.crop or self.stride) and self.mode != "slide":
            raise InputError("--crop and --stride are for windows. Pass --mode slide.")
        if not self.scales or min(self.scales) <= 0:
            raise InputError(f"--scales: expected numbers above 0, got {self.scales}.")

    def applied_to(self, recipe: SegmentationRecipe) -> SegmentationRecipe:
        """The recipe with these windows; an [`InputError`] where they would leave gaps."""
        if self.mode is None:
            return recipe
        if self.mode == "whole":
            return replace(recipe, crop_size=None, stride=None)
        crop = (self.crop, self.crop) if self.crop else recipe.crop_size or (512, 512)
        stride = (self.stride, self.stride) if self.stride else recipe.stride
        if self.crop or not stride:
            stride = (self.stride, self.stride) if self.stride else tuple(side * 2 // 3 for side in crop)
        if not all(0 < step <= side for step, side in zip(stride, crop, strict=True)):
            raise InputError(f"--stride: expected 1 to {crop[0]}, the size of the windows, got {stride[0]}.")
        return replace(recipe, crop_size=crop, stride=stride)

    def describe(self, recipe: SegmentationRecipe) -> str:
        """For tables."""
        mode = f"slide {recipe.crop_size[0]}/{recipe.stride[0]}" if recipe.crop_size else "whole"
        scales = "" if self.scales == (1.0,) else f", scales {' '.join(f'{scale:g}' for scale in self.scales)}"
        return f"{mode}{scales}{', flip' if self.flip else ''}"


def evaluate_ade20k(
    model: str,
    data: str,
    *,
    inference: Inference | None = None,
    split: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    mask_column: str | None = None,
    reduce_zero_label: bool = True,
    subset: bool = False,
    limit: int | None = None,
    settings: Settings | None = None,
) -> tuple[list[dict[str, str]], dict[str, float]]:
    """Measure a segmentation model of ADE20K's 150 classes.

    Args:
        model: Folder or id on the Hub.
        data: The folder ADEChallengeData2016, parquet or tar files, or the id of a data set on the Hub.
        split: See [`open_ade20k`], as for `revision` and the columns.
        reduce_zero_label: See [`read_mask`].
        subset: Accept fewer images than the validation set has.
        limit: Evaluate only the first images.

    Returns:
        The rows, as in the results, and class -> IoU in percent; both are empty in all processes but the first.

    Raises:
        InputError: Something given cannot be used. Nothing was written.
    """
    settings, inference = settings or Settings(batch_size=1), inference or Inference()
    settings.check()
    inference.check()
    source = open_ade20k(data, split, revision, image_column, mask_column)
    selection = check_images(source, subset, limit)
    loaded = load(model, segmenter_class(model_folder(model)), settings.dtype)
    return run(ADE20KEvaluation(loaded, selection, inference, reduce_zero_label), settings)


class ADE20KEvaluation(Evaluation):
    """The classes of an image's pixels; a record is its `areas`, 32-bit integers.

    Args:
        inference: How the model looks at an image.
        reduce_zero_label: See [`read_mask`].
    """

    def __init__(self, loaded: Loaded, selection: Selection, inference: Inference, reduce_zero_label: bool):
        self.id2label = loaded.model.config.id2label
        if len(self.id2label) != NUM_LABELS:
            raise InputError(
                f"{loaded.model.name_or_path}: predicts {len(self.id2label)} classes, ADE20K has {NUM_LABELS}."
            )
        self.recipe, self.inference = inference.applied_to(recipe_of(loaded.model)), inference
        self.reduce_zero_label = reduce_zero_label
        options = inference.describe(self.recipe)
        super().__init__(
            loaded,
            selection,
            size=f"{self.recipe.short_edge} to {self.recipe.long_edge}",
            options=options,
            processor="the recipe",
            depends_on={"inference": options, "zero label": str(reduce_zero_label)},
        )

    def prepare(self, sample: Sample) -> tuple[Image.Image, torch.Tensor]:
        """The image and its mask, (H, W)."""
        image = read_image(sample.file, sample.name)
        return image, read_mask(sample, image.size, self.reduce_zero_label)

    def measure(self, batch: list[tuple[Image.Image, torch.Tensor]]) -> list[bytes]:
        """One image at a time, as sizes differ."""
        records = []
        for image, mask in batch:
            look = {"scales": self.inference.scales, "flip": self.inference.flip}
            labels = semantic_labels(self.model, image, self.recipe, **look).cpu()
            records.append(areas(labels, mask, NUM_LABELS).numpy().astype(RECORD).tobytes())
        return records

    def reduce(self, records: list[bytes]) -> Outcome:
        """Means, and class -> IoU."""
        sums = np.frombuffer(b"".join(records), RECORD).reshape(-1, 3, NUM_LABELS).sum(axis=0, dtype=np.int64)
        if not sums[2].any():
            raise InputError(f"{self.selection.data.name}: no mask labels a pixel. Nothing was written.")
        means, ious = metrics(sums)
        return Outcome(means, {self.id2label[index]: iou for index, iou in enumerate(ious)})
