"""The effective receptive field of a model, and how much of the image it covers.

As in the RepLKNet paper (https://arxiv.org/abs/2203.06717) and the scripts in `erf/` of its repository.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from tqdm import tqdm
from transformers import BaseImageProcessor, PreTrainedModel

from ..inference.images import read_image
from .figures import OKABE_ITO, Figure, PowerNorm, Rectangle, check_out, new_figure, save_figure, style
from .image_view import check_size
from .photo import load_hierarchical, model_name

THRESHOLDS = (0.2, 0.3, 0.5, 0.99)
SIZE = 1024  # of the images in the paper


@dataclass(frozen=True)
class CoveredArea:
    """The smallest centred square that holds more than a share `threshold` of all contribution scores.

    Args:
        side: In pixels.
        ratio: The square's share of the area of the image, the paper's r.
    """

    threshold: float
    side: int
    ratio: float


def visualize_erf(
    images: Sequence[str | Path], model: str | Path, out: str | Path, *, size: int = SIZE
) -> list[CoveredArea]:
    """Draw the effective receptive field of a model's last feature map, averaged over image files.

    Args:
        images: Paths of the images.
        model: Folder or Hub id of an image classifier, or "default" for the embedded checkpoint.
        out: Picture to write.
        size: Side in pixels to which the images are resized, whatever their aspect ratio.

    Returns:
        The area that holds 20, 30, 50 and 99 % of the scores.

    Raises:
        InputError: An image, the model or the size cannot be used, or `out` cannot be written.
    """
    out = check_out(out)
    photos = [read_image(image) for image in images]
    processor, classifier = load_hierarchical(model)
    check_size(size, classifier.config.output_stride)
    scores = contribution_scores(classifier, processor, photos, size)
    areas = covered_areas(scores)
    count = f"{len(photos)} photo" + "s" * (len(photos) > 1)
    save_figure(draw_erf(scores, areas, f"{model_name(classifier)}: effective receptive field, {count}"), out)
    return areas


def contribution_scores(
    model: PreTrainedModel, processor: BaseImageProcessor, images: Sequence[Image.Image], size: int
) -> np.ndarray:
    """How much each input pixel adds to the central position of the last stage's feature map.

    As the authors' script computes it: the gradient of the sum of the position's positive channels, its positive part
    summed over the colour channels, averaged over the images, then log10(1 + score), scaled to a maximum of 1.

    Returns:
        (size, size).
    """
    total = torch.zeros(size, size)
    for image in tqdm(images, desc="gradients", disable=None if len(images) > 1 else True):
        square = {"height": size, "width": size}
        pixel_values = processor(
            image, size=square, do_center_crop=False, resample=Image.Resampling.BICUBIC, return_tensors="pt"
        ).pixel_values.requires_grad_()
        features = model(pixel_values, output_hidden_states=True).hidden_states[-1]  # (1, C, H, W)
        central = F.relu(features[:, :, features.shape[2] // 2, features.shape[3] // 2]).sum()
        (gradient,) = torch.autograd.grad(central, pixel_values)
        total += F.relu(gradient).sum(dim=(0, 1))
    scores = (total / len(images)).double().add(1).log10()
    return (scores / scores.max().clamp(min=torch.finfo(scores.dtype).tiny)).numpy()


def covered_areas(scores: np.ndarray, thresholds: Sequence[float] = THRESHOLDS) -> list[CoveredArea]:
    """Measure which squares around the centre hold most of the scores (size, size)."""
    size = len(scores)
    distance = np.abs(np.arange(size) - size // 2)
    rings = np.maximum(distance[:, None], distance)  # the square of half-width i holds the rings 0 to i
    held = np.bincount(rings.ravel(), weights=scores.ravel()).cumsum()
    areas = []
    for threshold in thresholds:
        ring = np.searchsorted(held, threshold * held[-1], side="right")
        side = min(2 * int(ring) + 1, size)
        areas.append(CoveredArea(threshold, side, (side / size) ** 2))
    return areas


@style
def draw_erf(scores: np.ndarray, areas: Sequence[CoveredArea], title: str) -> Figure:
    """Draw contribution scores, and the squares that hold a share of them."""
    size = len(scores)
    figure = new_figure(5.6, 4.9, title)
    axes = figure.add_subplot()
    artist = axes.imshow(scores, cmap="cividis", norm=PowerNorm(0.4, vmin=0, vmax=1))  # the rim is faint
    for area, colour in zip(areas, (OKABE_ITO[1], OKABE_ITO[3], OKABE_ITO[0], OKABE_ITO[6]), strict=True):
        corner = size // 2 - area.side / 2
        label = f"{area.threshold:.0%} in {area.side} x {area.side}: r = {area.ratio:.1%}"
        axes.add_patch(
            Rectangle((corner, corner), area.side, area.side, fill=False, edgecolor=colour, linewidth=1.6, label=label)
        )
    axes.set_title(f"input of {size} x {size} pixels, central position of the last feature map")
    figure.colorbar(artist, ax=axes, shrink=0.8, label="contribution, log10(1 + score), largest = 1")
    figure.legend(loc="outside lower center", ncols=2, title="share of the contribution, and the area that holds it")
    return figure
