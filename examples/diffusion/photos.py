"""Photos of 32 pixels for the experiment, and the small maps of many channels in which the U-Nets see them."""

import os
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

IMAGE_SIZE = 32


class Photos:
    """All photos of a split.

    Args:
        data: Folder of parquet files with the columns `image` and `label`.
        split: Beginning of their names.
        cache: File to keep the decoded photos in.

    Attributes:
        images: (n, 3, 32, 32), uint8.
        labels: (n,)
        names: The name of each label.
    """

    def __init__(self, data: Path, split: str, cache: Path):
        rows = datasets.load_dataset("parquet", data_files={split: str(data / f"{split}*.parquet")}, split=split)
        self.names: list[str] = rows.features["label"].names
        self.labels = torch.from_numpy(rows.with_format("numpy")["label"][:])
        if not cache.exists():
            images = np.empty((len(rows), 3, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
            for i, row in enumerate(rows.select_columns("image")):
                photo = ImageOps.fit(row["image"].convert("RGB"), (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
                images[i] = np.asarray(photo).transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W)
            save_array(cache, images)
        self.images = torch.from_numpy(np.load(cache))
        if len(self.images) != len(rows):
            raise SystemExit(f"{cache}: {len(self.images)} photos, and {len(rows)} in {data}. Use another OUTPUT.")

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, count: int) -> None:
        """Forget all photos but so many, evenly spread over their order."""
        chosen = torch.linspace(0, len(self) - 1, min(count, len(self))).long()
        self.images, self.labels = self.images[chosen], self.labels[chosen]


def save_array(path: Path, array: np.ndarray) -> None:
    """Write the file beside its place first, so that a file in its place is whole."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, array)
    os.replace(part, path)


def to_latents(images: torch.Tensor) -> torch.Tensor:
    """uint8 images (N, 3, H, W) -> (N, 12, H/2, W/2) within -1 and 1, where an autoencoder's latents would be."""
    return F.pixel_unshuffle(images.float() / 127.5 - 1, 2)


def to_images(latents: torch.Tensor) -> torch.Tensor:
    """The inverse of [`to_latents`]; what is out of range is clipped."""
    return ((F.pixel_shuffle(latents, 2) + 1) * 127.5).round().clamp(0, 255).byte()
