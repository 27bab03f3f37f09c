"""Small synthetic photos with objects, as COCO annotates them, and how well a detector finds these."""

import numpy as np
import torch
from transformers import BatchFeature

from hf_models.evaluate.coco_metrics import compressed, precision
from hf_models.image_processing_detection import DetectionImageProcessor
from hf_models.mask_pasting import run_lengths

SIDE = 64
COLOURS = np.array([[220, 40, 40], [40, 60, 220]])  # of the two classes: red ellipses, blue rectangles
PROCESSOR = DetectionImageProcessor(size={"shortest_edge": SIDE, "longest_edge": SIDE})


def scenes(count: int, seed: int = 0) -> list[tuple[np.ndarray, dict]]:
    """Images (SIDE, SIDE, 3) of one to three objects on noise, and their annotations."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    found = []
    for image_id in range(count):
        image, objects = random.integers(80, 176, (SIDE, SIDE, 3)), []
        taken = np.zeros((SIDE, SIDE), dtype=bool)
        for _ in range(random.integers(1, 4)):
            width, height = random.integers(14, 33, 2)
            left, top = random.integers(0, SIDE - width), random.integers(0, SIDE - height)
            label = int(random.integers(2))
            mask = (x > left) & (x < left + width) & (y > top) & (y < top + height)
            if (mask & taken).any():
                continue
            taken |= mask
            if label == 0:
                across, down = (x - left - width / 2) / width, (y - top - height / 2) / height
                mask = across**2 + down**2 <= 0.25
            image[mask] = COLOURS[label] + random.integers(-20, 21, (mask.sum(), 3))
            runs = compressed(run_lengths(torch.from_numpy(mask)))
            box = [int(side) for side in (left, top, width, height)]
            objects.append({"bbox": box, "category_id": label, "segmentation": runs, "area": int(mask.sum())})
        found.append((image.astype(np.uint8), {"image_id": image_id, "annotations": objects}))
    return found


def batch_of(examples: list[tuple[np.ndarray, dict]], with_masks: bool = False) -> BatchFeature:
    """What a detector takes."""
    images, annotations = zip(*examples, strict=True)
    return PROCESSOR(
        list(images), annotations=list(annotations), return_segmentation_masks=with_masks, return_tensors="pt"
    )


@torch.no_grad()
def average_precision(model, examples: list[tuple[np.ndarray, dict]], kind: str) -> float:
    """AP50 of the boxes ("box") or the masks ("mask") that a model finds."""
    truth = {"images": [], "annotations": [], "categories": [{"id": 0}, {"id": 1}]}
    for _, annotation in examples:
        truth["images"].append({"id": annotation["image_id"], "width": SIDE, "height": SIDE})
        for one in annotation["annotations"]:
            number = len(truth["annotations"]) + 1
            truth["annotations"].append(one | {"id": number, "image_id": annotation["image_id"], "iscrowd": 0})
    outputs, results = model(**PROCESSOR([image for image, _ in examples], return_tensors="pt")), []
    wanted = {"threshold": 0.0, "target_sizes": [(SIDE, SIDE)] * len(examples)}
    found = PROCESSOR.post_process_object_detection(outputs, **wanted)
    masks = [{"segmentation": [None] * len(one["scores"])} for one in found]
    if kind == "mask":
        masks = PROCESSOR.post_process_instance_segmentation(outputs, **wanted, return_coco_annotation=True)
    for (_, annotation), detections, drawn in zip(examples, found, masks, strict=True):
        for score, label, box, mask in zip(*detections.values(), drawn["segmentation"], strict=True):
            left, top, right, bottom = box.tolist()
            result = {"image_id": annotation["image_id"], "category_id": label.item(), "score": score.item()}
            result |= {"segmentation": compressed(mask)} if kind == "mask" else {}
            results.append(result | {"bbox": [left, top, right - left, bottom - top]})
    return precision(truth, results, kind).summary["AP50"] / 100
