#!/usr/bin/env bash
# `"ignore": 1` of an annotation is read by COCO's code, and overwritten in the next line.
#
# Expected: as the code reads the field, an object with it is neither to be found nor counted, so one box of two, found
# exactly, is an AP of 1. Seen: 0.505 in pycocotools, and in hotcoco and faster-coco-eval, which follow it. Only
# `"iscrowd": 1` is ignored (and matches any number of detections that lie inside).
# Who meets it: converters of data sets with difficult or truncated objects, such as PASCAL VOC, that write the field.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  pycocotools==2.0.11 hotcoco==1.3.0 faster-coco-eval==1.8.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import json
import pathlib

import faster_coco_eval
import hotcoco
import pycocotools.coco
import pycocotools.cocoeval

box = {"image_id": 1, "category_id": 1, "iscrowd": 0, "area": 10_000}
truth = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 640}],
    "categories": [{"id": 1, "name": "dog"}],
    "annotations": [
        box | {"id": 1, "bbox": [0, 0, 100, 100], "ignore": 1},
        box | {"id": 2, "bbox": [200, 200, 100, 100]},
    ],
}
found = [{"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [200, 200, 100, 100]}]
pathlib.Path("truth.json").write_text(json.dumps(truth))
pathlib.Path("found.json").write_text(json.dumps(found))
libraries = {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "hotcoco": (hotcoco.COCO, hotcoco.COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}
for name, (reader, evaluator) in libraries.items():
    with contextlib.redirect_stdout(io.StringIO()):
        objects = reader("truth.json")
        evaluation = evaluator(objects, objects.loadRes("found.json"), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    seen = round(float(evaluation.stats[0]), 3)
    print(name, importlib.metadata.version(name), "AP: expected 1.0, seen", seen)
    assert seen == 0.505, f"{name} has changed"
PYTHON
