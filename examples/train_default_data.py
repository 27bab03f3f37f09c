"""Photos for `train_default.py`: decoded once into a file, augmented with torchvision's transforms in batches."""

import copy
import os
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F
from torchvision.transforms import v2
from train_default_crops import crop, random_crops

from hf_models.image_processing_imagenet import ImageNetImageProcessor

IMAGE_SIZE = 64
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
HELD_BACK = 20
SHARED_DRAW = 4  # neighbours in a batch that share RandAugment and erasing: a third of the time
TEACHING = 0.7  # share of the teacher in what the student learns; the rest is the label


def image_processor(size: int) -> ImageNetImageProcessor:
    """Shows a model the middle of photos, at `size` x `size` pixels."""
    return ImageNetImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        resample=Image.Resampling.BICUBIC,
        image_mean=MEAN,
        image_std=STD,
    )


class Photos:
    """All photos of a split.

    Args:
        data: Folder of the parquet files.
        split: Beginning of their names.
        cache: File to keep the decoded photos in; it is mapped into memory.

    Attributes:
        images: (n, 3, 64, 64), uint8.
        labels: (n,)
        names: The wnid of each label.
    """

    def __init__(self, data: Path, split: str, cache: Path):
        rows = datasets.load_dataset("parquet", data_files={split: str(data / f"{split}*.parquet")}, split=split)
        self.names: list[str] = rows.features["label"].names
        self.labels = torch.from_numpy(rows.with_format("numpy")["label"][:])
        if not cache.exists():
            part = cache.with_suffix(".part")
            decoded = np.lib.format.open_memmap(part, "w+", np.uint8, (len(rows), 3, IMAGE_SIZE, IMAGE_SIZE))
            for i, row in enumerate(rows.select_columns("image")):
                photo = ImageOps.fit(row["image"].convert("RGB"), (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
                decoded[i] = np.asarray(photo).transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W)
            decoded.flush()
            os.replace(part, cache)
        self.images = torch.from_numpy(np.load(cache, mmap_mode="c"))  # "c": PyTorch warns of read-only arrays
        if len(self.images) != len(rows):
            raise SystemExit(f"{cache}: {len(self.images)} photos, and {len(rows)} in {data}. Use another OUTPUT.")

    def __len__(self) -> int:
        return len(self.labels)

    def held_back(self) -> tuple[torch.Tensor, "Photos"]:
        """Numbers of the photos to train on, and the others: every 20th, to choose by."""
        numbers = torch.arange(len(self))
        others = copy.copy(self)
        others.images, others.labels = self.images[::HELD_BACK], self.labels[::HELD_BACK]
        return numbers[numbers % HELD_BACK > 0], others


class Augmentation:
    """Turns photos into a training batch of `size` pixels.

    Args:
        size: Side of the images that the model sees.
        magnitude: Strength of RandAugment, of 30; with 0, photos are cropped and mirrored only.
        mix: Share of the batches that are mixed, half by CutMix and half by MixUp.
        num_classes: Width of the mixed labels.
    """

    def __init__(self, size: int, magnitude: int, mix: float, num_classes: int):
        self.size, self.num_classes = size, num_classes
        self.each = v2.Compose(
            [
                *([v2.RandAugment(num_ops=2, magnitude=magnitude, fill=[128, 128, 128])] if magnitude else ()),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
                v2.RandomErasing(p=0.1 if magnitude else 0.0, scale=(0.02, 0.2)),
            ]
        )
        mixers = [v2.CutMix(num_classes=num_classes), v2.MixUp(alpha=0.2, num_classes=num_classes), v2.Identity()]
        self.mixed = v2.RandomChoice(mixers, p=[mix / 2, mix / 2, 1 - mix])

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, lessons: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a batch.

        Args:
            images: (N, 3, 64, 64), uint8.
            labels: (N,)
            lessons: Crops (N, 5) and what a teacher says of them, logits (N, num_classes); then nothing is mixed.

        Returns:
            (N, 3, size, size), and (N,) or, mixed or taught, (N, num_classes).
        """
        crops = random_crops(len(images)) if lessons is None else lessons[0]
        images = crop(images, crops, self.size)
        images = torch.cat([self.each(few) for few in images.split(SHARED_DRAW)])
        if lessons is None:
            return self.mixed(images, labels)
        return images, torch.lerp(F.one_hot(labels, self.num_classes).float(), lessons[1].softmax(-1), TEACHING)


class Lessons:
    """What a teacher says of some views of each photo: the files of `train_default_teacher.py`."""

    def __init__(self, folder: Path, photos: Photos):
        self.crops = torch.from_numpy(np.load(folder / "crops.npy"))  # (n, views, 5)
        self.logits = torch.from_numpy(np.load(folder / "logits.npy", mmap_mode="c"))  # (n, views, classes)
        shape = (len(photos), self.crops.shape[1], len(photos.names))
        if self.logits.shape != shape:
            raise SystemExit(
                f"{folder}: logits of {tuple(self.logits.shape)} instead of {shape}. It has other photos."
            )

    def __call__(self, photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of one view for each of these photos: crops (N, 5) and logits (N, classes)."""
        view = torch.randint(self.crops.shape[1], photos.shape)
        return self.crops[photos, view], self.logits[photos, view].float()


def plain(images: torch.Tensor, size: int) -> torch.Tensor:
    """The whole photos (N, 3, 64, 64) at `size` pixels, resized and normalised as by `image_processor`."""
    if size != IMAGE_SIZE:
        images = F.interpolate(images.float(), (size, size), mode="bicubic", antialias=True).round().clamp(0, 255)
    return v2.functional.normalize(images / 255, MEAN, STD)
