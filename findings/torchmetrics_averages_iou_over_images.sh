#!/usr/bin/env bash
# torchmetrics.segmentation.MeanIoU averages over images what every segmentation benchmark adds up over all pixels.
#
# Expected: the IoU of a class is its intersection over its union in all images together, as in ADE20K, Cityscapes and
# Pascal VOC, and as in MulticlassJaccardIndex of the same library.
# Seen: it is the average of the IoUs in each image. A class that is found on 60 pixels of one image and missed on 2 of
# another has 0.5 instead of 60 / 62 = 0.97. In one batch or in two, the number is the same.
# Who meets it: anybody who compares a mIoU with a published one, or chooses a checkpoint by it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import torch
import torchmetrics
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

labels = torch.zeros(2, 8, 8, dtype=torch.long)
labels[0].flatten()[:60] = 1
labels[1].flatten()[:2] = 1
predicted = labels.clone()
predicted[1] = 0
seen = MeanIoU(num_classes=2, per_class=True, input_format="index")(predicted, labels)[1].item()
whole = MulticlassJaccardIndex(num_classes=2, average=None)(predicted, labels)[1].item()
print("torchmetrics", torchmetrics.__version__)
print(f"expected: {60 / 62:.3f}, and MulticlassJaccardIndex says {whole:.3f}")
print(f"seen: {seen:.3f}")
assert abs(whole - 60 / 62) < 1e-6 and seen == 0.5, "the average has changed"
PYTHON
