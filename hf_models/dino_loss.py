"""The loss of DINO (https://arxiv.org/abs/2203.03605): what is predicted, matched with what is to be found.

Each object is to be found by one query, the one that matches it best, and by no other. This holds for the predictions
of each layer of the decoder, and for those of the encoder. Who finds what is said by transformers' Deformable DETR.
"""

from typing import NamedTuple

import torch
from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher

from .boxes import corner_boxes
from .configuration_dino_detector import DinoDetectorConfig
from .contrastive_denoising import NoisyObjects
from .detection_losses import focal_loss, giou_loss, mean_over_processes

Matches = list[tuple[torch.Tensor, torch.Tensor]]  # for each image, the queries (m,) and the objects (m,) they find


class Prediction(NamedTuple):
    """What queries predict.

    Args:
        logits: (batch_size, queries, num_labels).
        boxes: (batch_size, queries, 4), centre x, centre y, width and height as fractions of the image.
    """

    logits: torch.Tensor
    boxes: torch.Tensor

    def split(self, queries: int) -> tuple["Prediction", "Prediction"]:
        """Those of the first queries, and those of the others."""
        logits, boxes = self
        return Prediction(logits[:, :queries], boxes[:, :queries]), Prediction(logits[:, queries:], boxes[:, queries:])


def dino_losses(
    proposed: Prediction,
    layers: list[Prediction],
    noisy: NoisyObjects | None,
    labels: list[dict],
    sizes: torch.Tensor,
    config: DinoDetectorConfig,
) -> dict[str, torch.Tensor]:
    """The parts of the loss, with their weights in them.

    Args:
        proposed: By the encoder.
        layers: By each layer of the decoder, of its own queries and then of those of known objects.
        noisy: The known objects, if there are any.
        labels: As [`checked_labels`] returns them.
        sizes: (batch_size, 2), width and height of each image without padding.
        config: Says how much each part counts, and in matching.

    Returns:
        Named as in Deformable DETR: `loss_ce`, `loss_bbox` and `loss_giou` of the last layer; with `_0` and so on, of
        the layers before it; with `_enc`, of the encoder; with `_dn_0` and so on, of each layer's known objects.
    """
    matcher = DeformableDetrHungarianMatcher(
        class_cost=config.class_cost, bbox_cost=config.bbox_cost, giou_cost=config.giou_cost
    )
    labels = [{name: objects[name].to(sizes.device) for name in ("class_labels", "boxes")} for objects in labels]
    own, known = zip(*(layer.split(proposed.logits.shape[1]) for layer in layers), strict=True)
    *earlier, last = own
    losses = {}
    for name, prediction in {"": last, **_numbered("_", earlier), "_enc": proposed}.items():
        logits, boxes = prediction
        matches = matcher({"logits": logits.to(boxes), "pred_boxes": boxes}, labels)
        losses |= _parts(name, prediction, matches, labels, sizes, config)
    if noisy is not None:
        for name, prediction in _numbered("_dn_", known).items():
            losses |= _parts(name, prediction, noisy.matches, labels, sizes, config)
    return losses


def _numbered(prefix: str, predictions: list[Prediction]) -> dict[str, Prediction]:
    return {f"{prefix}{i}": prediction for i, prediction in enumerate(predictions)}


def _parts(
    suffix: str,
    prediction: Prediction,
    matches: Matches,
    labels: list[dict],
    sizes: torch.Tensor,
    config: DinoDetectorConfig,
) -> dict[str, torch.Tensor]:
    """The loss of the classes, of all queries, and those of the boxes, of queries that are to find an object."""
    device = sizes.device
    images = torch.cat([torch.full_like(queries, i) for i, (queries, _) in enumerate(matches)]).to(device)
    queries = torch.cat([queries for queries, _ in matches]).to(device)
    classes, targets = (
        torch.cat([one[name][found.to(device)] for one, (_, found) in zip(labels, matches, strict=True)])
        for name in ("class_labels", "boxes")
    )
    logits = prediction.logits.to(targets.dtype)
    wanted = torch.zeros_like(logits)
    wanted[images, queries, classes] = 1
    boxes, sizes = prediction.boxes[images, queries], sizes[images]
    of_overlap = giou_loss(corner_boxes(boxes, sizes), corner_boxes(targets, sizes))
    count = mean_over_processes(logits.new_tensor(len(queries)))
    return {
        f"loss_ce{suffix}": focal_loss(logits, wanted, config.focal_alpha).sum() / count,
        f"loss_bbox{suffix}": config.bbox_loss_coefficient * (boxes - targets).abs().sum() / count,
        f"loss_giou{suffix}": config.giou_loss_coefficient * of_overlap.sum() / count,
    }
