"""Photos with masks for `finetune_segmentation.py`: folders, the classes in them, crops to train on."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from tqdm import tqdm
from transformers import TrainerCallback

from hf_models.errors import InputError
from hf_models.evaluate.data.images import IMAGE_SUFFIXES
from hf_models.inference import read_image
from hf_models.segmentation import SegmentationRecipe
from hf_models.segmentation.masks import IGNORED, read_mask

SPLITS = {"train": ("train", "training"), "validation": ("val", "validation", "valid", "dev")}
IMAGE_FOLDERS, MASK_FOLDERS = ("images", "imgs"), ("annotations", "masks", "labels")
UNLABELLED = -100  # what the Trainer does not count
SCALES = (0.75, 1.75)  # of a training image
JITTER = 0.25  # of brightness, contrast and saturation


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
        mask = read_mask(file, number + (self.ignored == number), reduce_zero_label=self.ignored == 0)
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


class Photos(torch.utils.data.Dataset):
    """Photos with the classes of their pixels; those to train on are augmented crops.

    What a crop is depends on the seed, the epoch and the index of its photo alone, so that a run can go on exactly,
    and several processes see what one would.

    Args:
        pairs: Image and mask files.
        labels: What the numbers in the masks mean.
        recipe: Size, mean and standard deviation of the images.
        crop_size: Side of the crops in pixels; `None` for whole photos, which are not augmented.
        skip_bad: Go on with the next photo where one cannot be read.
    """

    def __init__(
        self,
        pairs: list[tuple[Path, Path]],
        labels: Labels,
        recipe: SegmentationRecipe,
        crop_size: int | None = None,
        skip_bad: bool = False,
    ):
        self.pairs, self.labels, self.recipe = pairs, labels, recipe
        self.crop_size, self.skip_bad = crop_size, skip_bad
        self.epoch = 0
        self.bad = set()

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[Image.Image, np.ndarray] | None:
        """A photo and its classes, or `None` for one that is skipped; the error of each is printed once."""
        try:
            return self.labels.read_pair(*self.pairs[index])
        except InputError as error:
            if not self.skip_bad:
                raise InputError(f"{error} Or pass --skip-bad-images.") from error
            if index not in self.bad:
                self.bad.add(index)
                tqdm.write(f"skipped: {error}", file=sys.stderr)  # above the progress bar
            return None

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """A crop: `pixel_values` (3, crop_size, crop_size) and `labels` (crop_size, crop_size)."""
        for other in range(index, index + len(self)):
            if pair := self.read(other % len(self)):
                break
        else:
            raise InputError(f"{self.pairs[0][0].parent}: no image can be read. Nothing to train on.")
        image, mask = crop(*pair, self.recipe, self.crop_size, np.random.default_rng((self.epoch, index)))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255  # (H, W, 3) -> (3, H, W)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.recipe.mean, self.recipe.std))
        classes = torch.from_numpy(np.array(mask)).long()
        return {"pixel_values": (pixels - mean) / std, "labels": classes.where(classes != IGNORED, UNLABELLED)}


class Epochs(TrainerCallback):
    """Tells the photos which epoch it is."""

    def __init__(self, photos: Photos):
        self.photos = photos

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer."""
        self.photos.epoch = int(state.epoch)


def crop(
    image: Image.Image, mask: np.ndarray, recipe: SegmentationRecipe, size: int, random: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """A random square of a photo, at a random scale, mirrored half the time, in slightly other colours.

    A photo that is smaller than the square lies somewhere in it; the rest has the mean colour and no label.

    Args:
        mask: (height, width), the classes.
        recipe: Gives the size of the photo at scale 1, and the mean colour.
        size: Side of the square in pixels.
    """
    scale = math.exp(random.uniform(*np.log(SCALES)))
    scale *= min(recipe.short_edge / min(image.size), recipe.long_edge / max(image.size))
    left, top = (random.uniform(*sorted((0, side - size / scale))) for side in image.size)
    box = [left, top, left + size / scale, top + size / scale]
    if random.random() < 0.5:
        box[0], box[2] = box[2], box[0]  # mirrored
    extent, mean = Image.Transform.EXTENT, tuple(round(255 * value) for value in recipe.mean)
    image = image.transform((size, size), extent, box, Image.Resampling.BILINEAR, fillcolor=mean)
    labels = Image.fromarray(mask).transform((size, size), extent, box, Image.Resampling.NEAREST, fillcolor=IGNORED)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(random.uniform(1 - JITTER, 1 + JITTER))
    return image, labels
