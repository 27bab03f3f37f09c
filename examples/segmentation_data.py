"""Photos with masks for `finetune_segmentation.py`: folders, the classes in them, crops to train on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from training_photos import UNLABELLED, Photos, jittered, normalized, random_window

from hf_models.errors import InputError
from hf_models.evaluate.data.images import IMAGE_SUFFIXES
from hf_models.inference import read_image
from hf_models.segmentation import SegmentationRecipe
from hf_models.segmentation.masks import IGNORED, read_mask

SPLITS = {"train": ("train", "training"), "validation": ("val", "validation", "valid", "dev")}
IMAGE_FOLDERS, MASK_FOLDERS = ("images", "imgs"), ("annotations", "masks", "labels")
SCALES = (0.75, 1.75)  # of a training image


def find_pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    """The images of a split with their masks: `images/train/x.jpg` with `annotations/train/x.png`.

    Raises:
        InputError: There are no such folders, or an image has no mask.
    """
    for folder in (root / name / part for name in IMAGE_FOLDERS for part in SPLITS[split]):
        if images := sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_SUFFIXES):
            break
    else:
        raise InputError(f"{root}: no images in {root / IMAGE_FOLDERS[0] / SPLITS[split][0]}. Put them there.")
    masks = [root / name / folder.name for name in MASK_FOLDERS]
    masks = next((folder for folder in masks if folder.is_dir()), masks[0])
    pairs = [(image, masks / f"{image.stem}.png") for image in images]
    for image, mask in pairs:
        if not mask.is_file():
            raise InputError(f"{image}: has no mask {mask}. Add it, or remove the image.")
    return pairs


@dataclass(frozen=True)
class Labels:
    """What the numbers in masks mean.

    Args:
        names: Of the classes.
        ignored: The number of pixels that do not count, beside 255: 0 if the classes count from 1, or the one after
            those of the classes.
    """

    names: list[str]
    ignored: int | None = None

    def __post_init__(self):
        if self.ignored not in (None, 0, len(self.names), IGNORED):
            choice = f"0 if the classes count from 1, or {len(self.names)}, the number after theirs"
            raise InputError(f"--ignore-label {self.ignored}: give {choice}.")

    def read(self, file: Path) -> np.ndarray:
        """The classes of a mask's pixels, (height, width) in uint8, and `IGNORED`; see [`read_mask`]."""
        number = len(self.names)
        mask = read_mask(file, number + (self.ignored in (0, number)))
        if self.ignored == 0:
            return np.where(mask == IGNORED, mask, mask - np.uint8(1))  # 0 becomes 255, `IGNORED`
        return np.where(mask == number, np.uint8(IGNORED), mask)

    def read_pair(self, image: Path, mask: Path) -> tuple[Image.Image, np.ndarray]:
        """An image and the classes of its pixels.

        Raises:
            InputError: One of them cannot be read, or their sizes differ.
        """
        picture, classes = read_image(image), self.read(mask)
        if picture.size != classes.shape[::-1]:
            size = "{} x {} pixels, its image has {} x {}".format(*classes.shape[::-1], *picture.size)
            raise InputError(f"{mask}: {size}. Make the mask anew for this image.")
        return picture, classes

    def count(self, pairs: list[tuple[Path, Path]]) -> np.ndarray:
        """Pixels of each class in each mask, (masks, classes); all masks are read, so that none fails later."""
        return np.stack([np.bincount(self.read(mask).ravel(), minlength=256)[: len(self.names)] for _, mask in pairs])

    def check(self, trained: np.ndarray, validated: np.ndarray, pairs: list[tuple[Path, Path]]) -> None:
        """Refuse a validation that no training can prepare for, or that measures nothing.

        Args:
            trained: What `count` returns for the training masks.
            validated: And for the validation masks.
            pairs: The validation masks.
        """
        if not validated.any():
            raise InputError(f"{pairs[0][1].parent}: no mask labels a pixel. Check --ignore-label.")
        unknown = (validated > 0) & (trained.sum(0) == 0)  # (masks, classes)
        if unknown.any():
            mask, label = np.argwhere(unknown)[0]
            raise InputError(
                f"{pairs[mask][1]}: has class {label}, {self.names[label]}, which is in no mask to train on. "
                "Move images of it to those."
            )


class MaskedPhotos(Photos):
    """Photos with the classes of their pixels.

    Args:
        pairs: Image and mask files.
        labels: What the numbers in the masks mean.
        recipe: Size, mean and standard deviation of the images.
        crop_size: Side of the crops in pixels, where they are trained on.
        options: See [`Photos`].
    """

    def __init__(
        self,
        pairs: list[tuple[Path, Path]],
        labels: Labels,
        recipe: SegmentationRecipe,
        crop_size: int | None = None,
        **options,
    ):
        super().__init__(len(pairs), **options)
        self.pairs, self.labels, self.recipe, self.crop_size = pairs, labels, recipe, crop_size

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """See [`Labels.read_pair`]."""
        return self.labels.read_pair(*self.pairs[index])

    def example(self, loaded: tuple[Image.Image, np.ndarray], random: np.random.Generator) -> dict[str, torch.Tensor]:
        """`pixel_values` (3, crop_size, crop_size) and `labels` (crop_size, crop_size)."""
        image, mask = crop(*loaded, self.recipe, self.crop_size, random)
        classes = torch.from_numpy(np.array(mask)).long()
        pixels = normalized(image, self.recipe.mean, self.recipe.std)
        return {"pixel_values": pixels, "labels": classes.where(classes != IGNORED, UNLABELLED)}


def crop(
    image: Image.Image, mask: np.ndarray, recipe: SegmentationRecipe, size: int, random: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """A random square of a photo and its mask, in slightly other colours; around it are the mean colour and no label.

    Args:
        mask: (height, width), the classes.
        recipe: Gives the size of the photo at scale 1, and the mean colour.
        size: Side of the square in pixels.
    """
    window = random_window(image.size, (recipe.short_edge, recipe.long_edge), size, SCALES, random)
    colour = tuple(round(255 * value) for value in recipe.mean)
    labels = window.cut(Image.fromarray(mask), Image.Resampling.NEAREST, IGNORED)
    return jittered(window.cut(image, Image.Resampling.BILINEAR, colour), random), labels
