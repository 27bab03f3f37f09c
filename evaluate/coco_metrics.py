"""Average precision and recall as COCO's own code computes them, by the rules of mmdetection."""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_models.errors import InputError

try:
    from pycocotools import coco, cocoeval, mask
except ImportError:
    raise InputError("pycocotools: not installed, needed by COCO's metrics. Run `pip install pycocotools`.") from None
try:
    import hotcoco
except ImportError:
    hotcoco = None

MAX_DETECTIONS = [100, 300, 1000]  # so many detections of a class in an image may count
ALL_IOUS = slice(None)
# what is averaged: which array, IoUs from 0.5 in steps of 0.05, size of the objects, place in MAX_DETECTIONS
SUMMARY = {
    "AP": ("precision", ALL_IOUS, 0, 0),
    "AP50": ("precision", 0, 0, 2),
    "AP75": ("precision", 5, 0, 2),
    "APs": ("precision", ALL_IOUS, 1, 2),
    "APm": ("precision", ALL_IOUS, 2, 2),
    "APl": ("precision", ALL_IOUS, 3, 2),
    "AR@100": ("recall", ALL_IOUS, 0, 0),
    "AR@300": ("recall", ALL_IOUS, 0, 1),
    "AR@1000": ("recall", ALL_IOUS, 0, 2),
    "ARs": ("recall", ALL_IOUS, 1, 2),
    "ARm": ("recall", ALL_IOUS, 2, 2),
    "ARl": ("recall", ALL_IOUS, 3, 2),
}
CODES = {"box": "bbox", "mask": "segm"}
FIELDS = {  # that the metrics depend on
    "images": ("id", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"),
    "categories": ("id",),
}


@dataclass(frozen=True)
class Precision:
    """How good the boxes or the masks are; all numbers are percentages.

    Args:
        summary: Keys of `SUMMARY` -> value, but for sizes of which there are no objects.
        classes: Id of a category -> `AP` and `AR@100`, for those with objects.
        thresholds: (T,), IoUs from which on a detection is right.
        curves: (T, 101), precision at recalls from 0 to 100 %, means over the classes.
    """

    summary: dict[str, float]
    classes: dict[int, dict[str, float]]
    thresholds: np.ndarray
    curves: np.ndarray


def precision(truth: dict[str, list[dict[str, Any]]], results: list[dict[str, Any]], kind: str) -> Precision:
    """Compare detections with the objects, by hotcoco where it is installed, which is much faster than COCO's code.

    Args:
        truth: Images, annotations and categories in COCO's format.
        results: Detections in COCO's format, with `bbox` and, for masks, `segmentation`.
        kind: Key of `CODES`.
    """
    # the area of a result with a box would be the box's, so objects of other sizes would count in APs, APm and APl
    other = "bbox" if kind == "mask" else "segmentation"
    results = [{key: value for key, value in result.items() if key != other} for result in results]
    with redirect_stdout(io.StringIO()):
        objects = _indexed(truth)
        found = objects.loadRes(results) if results else _indexed(truth | {"annotations": []})
        evaluation = (hotcoco.COCOeval if hotcoco else cocoeval.COCOeval)(objects, found, CODES[kind])
        evaluation.params.maxDets = MAX_DETECTIONS
        evaluation.evaluate()
        evaluation.accumulate()
    # (T, 101, classes, sizes, 3) and (T, classes, sizes, 3); -1 where there are no objects
    arrays = {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall")}
    summary = {}
    for name, (array, ious, size, detections) in SUMMARY.items():
        values = arrays[array][ious][..., size, detections]
        if (values > -1).any():
            summary[name] = 100 * float(values[values > -1].mean())
    precisions, recalls = (values[..., 0, 0] for values in arrays.values())
    there = recalls[0] > -1
    means = zip(precisions[..., there].mean((0, 1)).tolist(), recalls[:, there].mean(0).tolist(), strict=True)
    ids = np.array(evaluation.params.catIds)[there].tolist()
    classes = {category: {"AP": 100 * p, "AR@100": 100 * r} for category, (p, r) in zip(ids, means, strict=True)}
    return Precision(summary, classes, np.array(evaluation.params.iouThrs), 100 * precisions[..., there].mean(2))


def compressed(runs: dict[str, Any]) -> dict[str, Any]:
    """A mask in COCO's compressed run-length encoding, from the uncompressed one."""
    return {"size": runs["size"], "counts": mask.frPyObjects(runs, *runs["size"])["counts"].decode()}


def _indexed(content: dict[str, Any]) -> Any:
    content = {
        part: [{field: entry[field] for field in fields if field in entry} for entry in content[part]]
        for part, fields in FIELDS.items()
    }
    for number, annotation in enumerate(content["annotations"], 1):
        annotation["id"] = number  # COCO's code takes the id 0 for no object, and some tools count from it
    for category in content["categories"]:
        category["name"] = str(category["id"])  # hotcoco wants one
    if hotcoco:
        return hotcoco.COCO(content)
    indexed = coco.COCO()
    indexed.dataset = content
    indexed.createIndex()
    return indexed
