#!/usr/bin/env bash
# DETR's processor gives targets relative to the padded batch, but reads predictions as relative to the image.
#
# Expected: targets fed back through post_process_object_detection are the boxes of the annotation, whatever else is
# in the batch. Seen: with a larger image beside it, a box [10, 10, 50, 50] of a 100 x 100 image comes back as [2.5,
# 5, 12.5, 25]. The same image has other targets in every batch; DETR as published divides by the image's size.
# Who meets it: fine-tuning DETR and its relatives on images of different sizes, batch size above 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.24.0 pillow==13.0.0
cd "$folder"
venv/bin/python - <<'PYTHON'
from types import SimpleNamespace

import numpy
import torch
import transformers
from transformers import DetrImageProcessorPil

processor = DetrImageProcessorPil(do_resize=False)
sizes = [(100, 100), (200, 400)]
images = [numpy.zeros((*size, 3), numpy.uint8) for size in sizes]
box = {"category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}
annotations = [{"image_id": index, "annotations": [{"image_id": index, **box}]} for index in range(2)]
labels = processor(images, annotations=annotations, return_tensors="pt")["labels"]
logits = torch.tensor([0.0, 20.0, 0.0, 0.0]).expand(2, 1, 4)
outputs = SimpleNamespace(logits=logits, pred_boxes=torch.stack([label["boxes"] for label in labels]))
found = [row["boxes"][0].tolist() for row in processor.post_process_object_detection(outputs, target_sizes=sizes)]
print("transformers", transformers.__version__)
print("expected: [10, 10, 50, 50] for both images")
print("seen:", [[round(number, 2) for number in row] for row in found])
assert numpy.allclose(found, [[2.5, 5, 12.5, 25], [10, 10, 50, 50]], atol=1e-3), "the boxes have changed"
PYTHON
