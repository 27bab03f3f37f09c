#!/usr/bin/env bash
# The same folder of classes has other label numbers in timm than in torchvision.
#
# Expected: both sort the names of the folders, as datasets does too. Seen: timm sorts numbers as numbers and without
# regard to case, torchvision sorts characters; five folders 1, 2, 10, apple, Zebra agree in one label only.
# Who meets it: training with timm's scripts and evaluating with torchvision's ImageFolder, or the other way round.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  torch==2.13.0 torchvision==0.28.0 timm==1.0.31 pillow==13.0.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import pathlib

import torch

try:
    import torchvision
except RuntimeError:  # the wheel's compiled operators need CUDA's libraries; its Python part needs their names only
    import sys

    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    names = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        names.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
import timm
from PIL import Image
from timm.data import create_dataset

for name in ("1", "2", "10", "apple", "Zebra"):
    pathlib.Path("photos", name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(f"photos/{name}/photo.png")
by_timm = create_dataset("", "photos").reader.class_to_idx
by_torchvision = torchvision.datasets.ImageFolder("photos").class_to_idx
print("timm", timm.__version__, "torchvision", torchvision.__version__)
print("expected:", by_torchvision)
print("seen in timm:", by_timm)
assert by_torchvision == {"1": 0, "10": 1, "2": 2, "Zebra": 3, "apple": 4}, "torchvision's order has changed"
assert by_timm == {"1": 0, "2": 1, "10": 2, "apple": 3, "Zebra": 4}, "timm's order has changed"
PYTHON
