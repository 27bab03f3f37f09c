#!/usr/bin/env bash
# AlbumentationsX returns other numbers in label_fields than it was given: they travel as float32 beside the boxes.
#
# Expected: a field of integers comes back as it is, since no transform touches it. Seen: numbers above 2 ** 24 are
# rounded, and a list of integers comes back as floats. COCO's crowd annotations have ids like 900100581904, which
# are not found again afterwards.
# Who meets it: whoever carries annotation or track ids through augmentation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 'albumentationsx[headless]==2.5.1'
cd "$folder"
venv/bin/python - <<'PYTHON'
import warnings

warnings.simplefilter("ignore")
import albumentations
import numpy

ids = [5, 16777217, 900100581904]
boxes = numpy.array([[10, 10, 20, 20], [1, 2, 3, 4], [30, 30, 9, 9]], float)
flip = albumentations.Compose(
    [albumentations.HorizontalFlip(p=1)],
    bbox_params=albumentations.BboxParams(coord_format="coco", label_fields=["ids"]),
)
seen = flip(image=numpy.zeros((100, 100, 3), numpy.uint8), bboxes=boxes, ids=ids)["ids"]
print("albumentationsx", albumentations.__version__)
print("expected:", ids)
print("seen:", [float(number) for number in seen])
assert [float(number) for number in seen] == [5.0, 16777216.0, 900100587520.0], "the fields are kept now"
PYTHON
