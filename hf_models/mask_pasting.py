"""Masks of detections: from a grid of probabilities over a box to the pixels of an image, and to COCO's runs."""

import torch
import torch.nn.functional as F


def paste_mask(
    probabilities: torch.Tensor, box: torch.Tensor, size: tuple[int, int], threshold: float = 0.5
) -> torch.Tensor:
    """The pixels of an image that belong to an object, as mmdetection finds them (`FCNMaskHead.get_seg_masks`).

    Only a window around the box is computed. So one mask costs a byte for each pixel of the image, and a few numbers
    for each pixel of the window.

    Args:
        probabilities: (side, side), at the cells of a grid over the box.
        box: (4,), left, top, right and bottom edge in pixels of the image.
        size: Height and width of the image.
        threshold: Probability from which on a pixel belongs to the object.

    Returns:
        (height, width), boolean.
    """
    mask = torch.zeros(size, dtype=torch.bool, device=probabilities.device)
    box = box.float()
    left, top = (box[:2].floor() - 1).clamp(min=0).int().tolist()
    right, bottom = torch.minimum(box[2:].ceil() + 1, box.new_tensor(size[::-1])).int().tolist()
    if right <= left or bottom <= top:
        return mask
    x, y = (
        ((torch.arange(start, stop, device=box.device) + 0.5 - low) / (high - low) * 2 - 1)
        # a box without width or height has no coordinates inside; the original takes the middle
        .nan_to_num(nan=0, posinf=0, neginf=0)
        for start, stop, low, high in ((left, right, box[0], box[2]), (top, bottom, box[1], box[3]))
    )
    # (rows,), (columns,) -> (1, rows, columns, 2)
    grid = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))), dim=-1)[None]
    values = F.grid_sample(probabilities.float()[None, None], grid, align_corners=False)[0, 0]
    mask[top:bottom, left:right] = values >= threshold
    return mask


def run_lengths(mask: torch.Tensor) -> dict[str, list[int]]:
    """A mask in COCO's uncompressed run-length encoding.

    Args:
        mask: (height, width), boolean.

    Returns:
        `size`, height and width, and `counts`, how many pixels in a row, column by column, are outside, inside,
        outside, and so on.
    """
    pixels = mask.cpu().T.flatten()  # (height, width) -> (width * height,)
    changes = (pixels[1:] != pixels[:-1]).nonzero().flatten() + 1
    ends = torch.cat((changes.new_zeros(1), changes, changes.new_tensor([len(pixels)])))
    counts = ends.diff().tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if pixels[:1].any() else counts}
