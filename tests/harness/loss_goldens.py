"""What mmdetection's own code made of detectors, feature levels and objects: its losses."""

import json
from pathlib import Path

import numpy as np
import torch

from .detection_originals import FIXTURES, golden_checkpoint

SIZES = ((121, 101), (96, 60))  # width and height of two images, which are padded to 128 x 128
# Name -> golden, what of its model dict is changed, numbers of objects in the images. Everything is drawn.
RPN = {"assigner": {"pos_iou_thr": 0.7}, "sampler": {"num": 10**6}}
REGION = {"sampler": {"num": 10**6}}
CASES = {
    "mask_rcnn": (
        "mask_rcnn_t_like",
        {"train_cfg": {"rpn": RPN | {"allowed_border": -1}, "rcnn": REGION}},
        (5, 3),
    ),
    "mask_rcnn, one image is empty": (
        "mask_rcnn_t_like",
        {"train_cfg": {"rpn": RPN | {"allowed_border": -1}, "rcnn": REGION}},
        (0, 4),
    ),
    "cascade": (
        "cascade",
        {
            "train_cfg": {"rpn": RPN | {"allowed_border": 0}, "rcnn": [REGION] * 3},
            "rpn_head.loss_bbox": {"type": "SmoothL1Loss", "beta": 1 / 9, "loss_weight": 1.0},
        },
        (5, 3),
    ),
    "fcos": ("fcos", {}, (5, 3)),
    "fcos, GIoU": ("fcos", {"bbox_head.loss_bbox": {"type": "GIoULoss", "loss_weight": 1.0}}, (5, 3)),
    "fcos, centres": ("fcos", {"bbox_head.center_sampling": True}, (5, 3)),
    "fcos, both images are empty": ("fcos", {}, (0, 0)),
}
LOSSES = Path(FIXTURES) / "det_losses.json"


def losses_of_original(case: str) -> dict[str, float]:
    """Name of the loss, as it is called here -> its value."""
    return json.loads(LOSSES.read_text())["losses"][case]


def original_of(case: str) -> tuple[dict[str, torch.Tensor], dict]:
    """The state dict and the model dict of a case."""
    name, change, _ = CASES[case]
    state, config = golden_checkpoint(name)
    for path, value in change.items():
        *parents, leaf = path.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        section[leaf] = value
    return state, config


def batch_of_case(
    case: str, strides: list[int], channels: int, num_labels: int
) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Levels of a feature pyramid (2, channels, height, width), and labels with masks (n, 128, 128)."""
    random = np.random.RandomState(3)  # its numbers are the same in every version of NumPy
    labels = []
    for count in CASES[case][2]:
        sides = 0.1 + 0.4 * random.rand(count, 2)
        centres = sides / 2 + (1 - sides) * random.rand(count, 2)
        classes = random.randint(num_labels, size=count)
        masks = (random.rand(count, 16, 16) > 0.4).repeat(8, axis=1).repeat(8, axis=2)
        boxes = np.concatenate((centres, sides), axis=1).astype(np.float32)
        labels.append({"class_labels": classes, "boxes": boxes, "masks": masks.astype(np.uint8)})
    levels = [random.randn(2, channels, 128 // stride, 128 // stride).astype(np.float32) for stride in strides]
    return [torch.from_numpy(level) for level in levels], [
        {name: torch.from_numpy(values) for name, values in objects.items()} for objects in labels
    ]
