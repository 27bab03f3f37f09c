"""Contrastive denoising: queries of known objects, by which DINO's decoder learns (DINO, section 3.3).

https://arxiv.org/abs/2203.03605

While it trains, the decoder gets queries beside its own whose boxes and classes are those of the objects, with noise.
Of a box with little noise it is to make the object again, of one with more it is to say that nothing is there. No
matching has to tell which query finds which object. There are several groups of such queries. Each group has one of
both kinds for each object.
"""

from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from .configuration_dino_detector import DinoDetectorConfig


class NoisyObjects(NamedTuple):
    """What N queries for each image are made of; images with fewer objects than others have queries of nothing.

    Args:
        classes: (batch_size, N).
        boxes: (batch_size, N, 4), centre x, centre y, width and height as fractions of the image.
        known: (batch_size, N), false where a query is of nothing.
        group: (N,), the group that a query belongs to.
        matches: For each image, the queries (m,) that are to find objects, and the objects (m,) that they are to find.
    """

    classes: torch.Tensor
    boxes: torch.Tensor
    known: torch.Tensor
    group: torch.Tensor
    matches: list[tuple[torch.Tensor, torch.Tensor]]


def noisy_objects(labels: list[dict], config: DinoDetectorConfig, device: torch.device) -> NoisyObjects:
    """Queries of the objects of a batch; none if no image has an object, or the config wants none.

    Args:
        labels: As [`checked_labels`] returns them.
        config: Says how many queries there are and how noisy they are.
        device: Of the results.
    """
    classes = pad_sequence([objects["class_labels"].to(device) for objects in labels], batch_first=True)
    boxes = pad_sequence([objects["boxes"].to(device) for objects in labels], batch_first=True)
    counts, most = [len(objects["boxes"]) for objects in labels], boxes.shape[1]
    groups = max(config.num_denoising // most, 1) if most and config.num_denoising else 0
    known = torch.arange(most, device=device) < torch.tensor(counts, device=device)[:, None]

    # (B, most) -> (B, groups * 2 * most): in each group one query of each object with little noise, and then with more
    classes, known = (tensor.repeat(1, 2 * groups) for tensor in (classes, known))
    centres, sizes = boxes.repeat(1, 2 * groups, 1).split(2, dim=-1)
    # half of it, as in the original
    replaced = torch.rand(classes.shape, device=device) < config.label_noise_ratio / 2
    classes = torch.where(replaced, torch.randint_like(classes, config.num_labels), classes)
    steps = torch.rand((*classes.shape, 4), device=device)
    steps.unflatten(1, (groups, 2, most))[:, :, 1] += 1
    steps *= torch.randint_like(steps, 2) * 2 - 1  # inwards or outwards, each edge by itself
    edges = torch.cat((centres - sizes / 2, centres + sizes / 2), dim=-1)
    edges = edges + config.box_noise_scale * steps * torch.cat((sizes, sizes), dim=-1) / 2
    low, high = edges.clamp(0, 1).split(2, dim=-1)
    # what has no extent, or less, as edges may pass each other, gets one that the decoder can tell from none
    boxes = torch.cat(((low + high) / 2, high - low), dim=-1).clamp(1e-3, 1 - 1e-3)

    first = 2 * most * torch.arange(groups, device=device)  # of each group
    objects = [torch.arange(count, device=device) for count in counts]
    matches = [((first[:, None] + each).flatten(), each.repeat(groups)) for each in objects]
    group = torch.arange(groups, device=device).repeat_interleave(2 * most)
    return NoisyObjects(classes, boxes, known, group, matches)


def attention_mask(group: torch.Tensor, queries: int, batch_size: int, dtype: torch.dtype) -> torch.Tensor:
    """The mask by which no query sees the objects that it is to find.

    The decoder's own queries see each other. A query of a known object sees these, and its own group.

    Args:
        group: (N,), the groups of the queries of known objects.
        queries: Number of the decoder's own, which come first.
        batch_size: Number of images.
        dtype: Of the queries.

    Returns:
        (batch_size, 1, queries + N, queries + N), to be added to the attention scores; the last axis is what is seen.
    """
    group = torch.cat((group.new_full((queries,), -1), group))
    visible = (group[:, None] == group) | (group == -1)
    mask = torch.zeros(visible.shape, dtype=dtype, device=group.device).masked_fill(~visible, -torch.inf)
    return mask.expand(batch_size, 1, -1, -1)
