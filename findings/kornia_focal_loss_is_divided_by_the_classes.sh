#!/usr/bin/env bash
# kornia's focal_loss with gamma 0 and no alpha is the cross entropy divided by the number of classes.
#
# Expected: focal loss with gamma = 0 is the cross entropy (so its paper has it), with reduction="mean" the mean over
# pixels. Seen: the mean runs over pixels and classes, though only the class of the label contributes; with the 150
# classes of ADE20K the loss is 150 times smaller than the term that it replaces.
# Who meets it: segmentation losses that add focal loss to Dice or swap it for cross entropy at the same weight.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 kornia==0.9.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import kornia
import torch
import torch.nn.functional as F

torch.manual_seed(0)
ratios = {}
for classes in (4, 150):
    logits, labels = torch.randn(2, classes, 8, 8), torch.randint(0, classes, (2, 8, 8))
    focal = kornia.losses.focal_loss(logits, labels, alpha=None, gamma=0.0, reduction="mean")
    ratios[classes] = round((F.cross_entropy(logits, labels) / focal).item(), 3)
print("kornia", kornia.__version__)
print("expected: cross entropy / focal loss = 1 for 4 and for 150 classes")
print("seen:", ratios)
assert ratios == {4: 4.0, 150: 150.0}, "the reduction has changed"
PYTHON
