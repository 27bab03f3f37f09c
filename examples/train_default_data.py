"""Photos for `train_default.py`: decoded once into a file, augmented with torchvision's transforms in batches."""

import os
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F
from torchvision.transforms import v2

from hf_models.image_processing_imagenet import ImageNetImageProcessor

IMAGE_SIZE = 64
TEST_SIZE = 80  # as the last images of training; 96 was as accurate
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SHARED_DRAW = 4  # neighbours in a batch that share one crop, mirroring, RandAugment and erasing: a third of the time


def image_processor() -> ImageNetImageProcessor:
    return ImageNetImageProcessor(
        size={"shortest_edge": TEST_SIZE},
        crop_size={"height": TEST_SIZE, "width": TEST_SIZE},
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


class Augmentation:
    """Turns photos into a training batch of `size` pixels.

    Args:
        size: Side of the images that the model sees.
        magnitude: Strength of RandAugment, of 30.
        mix: Share of the batches that are mixed, half by CutMix and half by MixUp.
        num_classes: Width of the mixed labels.
    """

    def __init__(self, size: int, magnitude: int, mix: float, num_classes: int):
        self.each = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(0.35, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.RandAugment(num_ops=2, magnitude=magnitude, fill=[128, 128, 128]),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
                v2.RandomErasing(p=0.1, scale=(0.02, 0.2)),
            ]
        )
        mixers = [v2.CutMix(num_classes=num_classes), v2.MixUp(alpha=0.2, num_classes=num_classes), v2.Identity()]
        self.mixed = v2.RandomChoice(mixers, p=[mix / 2, mix / 2, 1 - mix])

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes (N, 3, 64, 64), uint8, and (N,); returns (N, 3, size, size) and (N,) or, mixed, (N, num_classes)."""
        return self.mixed(torch.cat([self.each(few) for few in images.split(SHARED_DRAW)]), labels)


def plain(images: torch.Tensor, size: int) -> torch.Tensor:
    """The whole photos (N, 3, 64, 64) at `size` pixels, resized and normalised as by `image_processor`."""
    if size != IMAGE_SIZE:
        images = F.interpolate(images.float(), (size, size), mode="bicubic", antialias=True).round().clamp(0, 255)
    return v2.functional.normalize(images / 255, MEAN, STD)
