"""What every detector returns: a fixed number of detections for each image, the best first."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers.utils import ModelOutput


@dataclass
class DetectorOutput(ModelOutput):
    """Detections of a batch of images, `max_detections` (K) places for each; places without one have label -1.

    The valid area of an image is what `pixel_mask` marks, or all of `pixel_values`: the image after resizing, without
    the padding on its right and below.

    Args:
        loss: The sum of the parts in `loss_dict`; `None` without labels. Pipelines expect the field to be the first.
        loss_dict: Name -> part of the loss, with its weight in it; `None` without labels.
        scores: (batch_size, K), in [0, 1], descending; 0 where there is no detection.
        labels: (batch_size, K), indices of classes; -1 where there is no detection.
        boxes: (batch_size, K, 4), left, top, right and bottom edge, as fractions of the width and height of the valid
            area.
        masks: (batch_size, K, side, side), probabilities that the cells of a grid over the box belong to the object;
            `None` for models without masks.
        hidden_states: Feature maps of the backbone, where they are asked for.
    """

    loss: torch.Tensor | None = None
    loss_dict: dict[str, torch.Tensor] | None = None
    scores: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    masks: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


def fixed_number(detections: Iterable[torch.Tensor], places: int, empty: int) -> torch.Tensor:
    """One tensor of what was found in several images.

    Args:
        detections: For each image, up to K scores, labels, boxes or masks (k, ...).
        places: The K that results.
        empty: The value of places without a detection.

    Returns:
        (batch_size, K, ...).
    """
    return torch.stack(
        [F.pad(found, (0, 0) * (found.ndim - 1) + (0, places - len(found)), value=empty) for found in detections]
    )
