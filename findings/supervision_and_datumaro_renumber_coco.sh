#!/usr/bin/env bash
# A COCO file that is loaded and saved by supervision or datumaro has other category ids.
#
# Expected: categories 18 (dog) and 90 (toothbrush) keep their ids, as they do in globox, and so do the images. Seen:
# both libraries number the categories 1, 2, 3, and supervision the images too. Predictions made for the original
# file then name other classes: COCO's 3, a car, is scored as what became 3 here.
# Who meets it: filtering, splitting or merging COCO with these tools before an evaluation by pycocotools.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  supervision==0.31.2 datumaro==1.13.12 opencv-python-headless==4.14.0.94 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import contextlib
import io
import json
import pathlib

import cv2
import datumaro
import numpy
import supervision

pathlib.Path("coco/images/val").mkdir(parents=True)
pathlib.Path("coco/annotations").mkdir()
cv2.imwrite("coco/images/val/photo.png", numpy.zeros((64, 64, 3), numpy.uint8))
source = {
    "images": [{"id": 139, "file_name": "photo.png", "width": 64, "height": 64}],
    "categories": [{"id": number, "name": name} for number, name in ((1, "person"), (18, "dog"), (90, "toothbrush"))],
    "annotations": [
        {
            "id": number,
            "image_id": 139,
            "category_id": category,
            "bbox": [5, 5, 10, 10],
            "area": 100,
            "iscrowd": 0,
            "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]],
        }
        for number, category in ((7, 18), (8, 90))
    ],
}
path = pathlib.Path("coco/annotations/instances_val.json")
path.write_text(json.dumps(source))
with contextlib.redirect_stderr(io.StringIO()):
    supervision.DetectionDataset.from_coco("coco/images/val", str(path)).as_coco(annotations_path="supervision.json")
    datumaro.Dataset.import_from("coco", "coco_instances").export("datumaro", "coco_instances")
seen = {}
for name, file in (("supervision", "supervision.json"), ("datumaro", "datumaro/annotations/instances_val.json")):
    saved = json.loads(pathlib.Path(file).read_text())
    boxes = sorted((row["image_id"], row["category_id"]) for row in saved["annotations"])
    seen[name] = ([row["id"] for row in saved["categories"]], boxes)
print("supervision", supervision.__version__, "datumaro", datumaro.__version__)
print("expected: categories [1, 18, 90], annotations (image, category) [(139, 18), (139, 90)]")
print("seen:", seen)
assert seen["supervision"] == ([1, 2, 3], [(1, 2), (1, 3)]), "supervision has changed"
assert seen["datumaro"] == ([1, 2, 3], [(139, 2), (139, 3)]), "datumaro has changed"
PYTHON
