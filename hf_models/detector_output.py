"""What every detector returns: a fixed number of detections for each image, the best first."""

from dataclasses import dataclass

import torch
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


def fixed_number(images: list[tuple], places: int, like: torch.Tensor, side: int = 0) -> dict[str, torch.Tensor]:
    """One tensor of each kind of what was found in several images, or in none.

    Args:
        images: For each image, up to K scores (k,), labels (k,), boxes (k, 4) and masks (k, side, side), or `None` in
            the place of masks.
        places: The K that results.
        like: Has the type and device of the results.
        side: Of the masks; 0 for models without.

    Returns:
        Fields of [`DetectorOutput`].
    """
    batch_size = len(images)
    fields = {
        "scores": like.new_zeros(batch_size, places),
        "labels": like.new_full((batch_size, places), -1, dtype=torch.long),
        "boxes": like.new_zeros(batch_size, places, 4),
    }
    if side:
        fields["masks"] = like.new_zeros(batch_size, places, side, side)
    for i, found in enumerate(images):
        for tensor, values in zip(fields.values(), found, strict=False):
            tensor[i, : len(values)] = values
    return fields
