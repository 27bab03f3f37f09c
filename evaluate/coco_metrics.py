"""Average precision and recall as COCO's own code computes them, by the rules of mmdetection."""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_models.errors import InputError

try:
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
except ImportError:
    raise InputError("pycocotools: not installed, needed by COCO's metrics. Run `pip install pycocotools`.") from None

# AP and the first AR count so many detections of a class in an image; the second AR the next, all others the last
MAX_DETECTIONS = [100, 300, 1000]
SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR@100", "AR@300", "AR@1000", "ARs", "ARm", "ARl")
CODES = {"box": "bbox", "mask": "segm"}


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
    """Compare detections with the objects.

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
        evaluation = COCOeval(objects, found, CODES[kind])
        evaluation.params.maxDets = MAX_DETECTIONS
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # (T, 101, classes) and (T, classes), of all sizes with the first of MAX_DETECTIONS; -1 for classes without objects
    precisions, recalls = evaluation.eval["precision"][..., 0, 0], evaluation.eval["recall"][..., 0, 0]
    there = recalls[0] > -1
    ids = np.array(evaluation.params.catIds)[there].tolist()
    means = zip(precisions[..., there].mean((0, 1)).tolist(), recalls[:, there].mean(0).tolist(), strict=True)
    classes = {category: {"AP": 100 * p, "AR@100": 100 * r} for category, (p, r) in zip(ids, means, strict=True)}
    summary = {name: 100 * float(value) for name, value in zip(SUMMARY, evaluation.stats, strict=True) if value > -1}
    return Precision(summary, classes, evaluation.params.iouThrs, 100 * precisions[..., there].mean(2))


def compressed(runs: dict[str, Any]) -> dict[str, Any]:
    """A mask in COCO's compressed run-length encoding, from the uncompressed one."""
    return {"size": runs["size"], "counts": mask.frPyObjects(runs, *runs["size"])["counts"].decode()}


def _indexed(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco
