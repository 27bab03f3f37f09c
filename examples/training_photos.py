"""Photos to train on: random squares of them, and what becomes of those that cannot be read."""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from tqdm import tqdm
from transformers import TrainerCallback

from hf_models.errors import InputError

JITTER = 0.25  # of brightness, contrast and saturation
UNLABELLED = -100  # what the Trainer does not count


class Photos(torch.utils.data.Dataset, ABC):
    """Photos with what is labelled on them; what is trained on are random crops.

    What a crop is depends on the epoch and the index of its photo alone, so that a run can go on exactly, and several
    processes see what one would.

    Args:
        count: How many photos there are.
        repeat: How often an epoch has each of them, in other crops.
        skip_bad: Go on with the next photo where one cannot be read.
    """

    def __init__(self, count: int, repeat: int = 1, skip_bad: bool = False):
        self.count, self.repeat, self.skip_bad = count, repeat, skip_bad
        self.epoch = 0
        self.bad = set()

    def __len__(self) -> int:
        return self.count * self.repeat

    @abstractmethod
    def load(self, index: int) -> Any:
        """A photo and what is labelled on it.

        Raises:
            InputError: It cannot be read.
        """

    @abstractmethod
    def example(self, loaded: Any, random: np.random.Generator) -> dict[str, Any]:
        """What `load` returned, cropped at random, for the model."""

    def read(self, index: int) -> Any | None:
        """As `load`, but `None` for a photo that is skipped; the error of each is printed once."""
        try:
            return self.load(index)
        except InputError as error:
            if not self.skip_bad:
                raise InputError(f"{error} Or pass --skip-bad-images.") from error
            if index not in self.bad:
                self.bad.add(index)
                tqdm.write(f"skipped: {error}", file=sys.stderr)  # above the progress bar
            return None

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An example for the model."""
        for other in range(index, index + self.count):
            if (loaded := self.read(other % self.count)) is not None:
                return self.example(loaded, np.random.default_rng((self.epoch, index)))
        raise InputError(f"none of {self.count} photos can be read. Nothing to train on.")


class Epochs(TrainerCallback):
    """Tells the photos which epoch it is."""

    def __init__(self, photos: Photos):
        self.photos = photos

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer."""
        self.photos.epoch = int(state.epoch)


@dataclass(frozen=True)
class Window:
    """A square of a photo, enlarged or shrunk, and perhaps mirrored.

    Args:
        edges: Left, top, right and bottom in pixels of the photo; left lies right of right where it is mirrored. What
            is outside of the photo has one colour.
        size: Its side after it was resized, in pixels.
    """

    edges: tuple[float, float, float, float]
    size: int

    def cut(self, image: Image.Image, resample: Image.Resampling, fill: int | Sequence[int]) -> Image.Image:
        """This part of an image or of a mask, `fill` where there is none."""
        size = (self.size, self.size)
        return image.transform(size, Image.Transform.EXTENT, self.edges, resample, fillcolor=fill)

    def locate(self, boxes: np.ndarray) -> np.ndarray:
        """Where boxes (N, 4), left, top, right and bottom in pixels of the photo, are: in fractions of the window."""
        first, last = np.split(np.array(self.edges), 2)
        corners = (boxes.reshape(-1, 2, 2) - first) / (last - first)  # (N, two corners, x and y)
        return np.concatenate((corners.min(1), corners.max(1)), axis=1)


def random_window(
    image: tuple[int, int],
    edges: tuple[int, int],
    size: int,
    scales: tuple[float, float],
    random: np.random.Generator,
    upside_down: bool = False,
) -> Window:
    """A random part of a photo at a random scale, mirrored half the time.

    A photo that is smaller than the window lies somewhere in it.

    Args:
        image: Width and height of the photo.
        edges: How long its short and its long side may be at scale 1.
        size: Side of the window in pixels.
        scales: The least and the greatest scale.
        upside_down: Whether half of them are turned over, too.
    """
    scale = math.exp(random.uniform(*np.log(scales)))
    scale *= min(edges[0] / min(image), edges[1] / max(image))
    left, top = (random.uniform(*sorted((0, side - size / scale))) for side in image)
    right, bottom = left + size / scale, top + size / scale
    if random.random() < 0.5:
        left, right = right, left
    if upside_down and random.random() < 0.5:
        top, bottom = bottom, top
    return Window((left, top, right, bottom), size)


def jittered(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """The same in slightly other colours."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(random.uniform(1 - JITTER, 1 + JITTER))
    return image


def normalized(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """An RGB image as a model sees it, (3, height, width)."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255  # (H, W, 3) -> (3, H, W)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return (pixels - mean) / std
