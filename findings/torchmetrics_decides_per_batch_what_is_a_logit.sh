#!/usr/bin/env bash
# torchmetrics applies a sigmoid to a batch of scores only if one of them lies outside of [0, 1].
#
# Expected: AUROC and average precision depend on the order of the scores alone, so logits may be passed, in batches
# of any size. Seen: a batch whose logits all happen to lie in [0, 1] is taken as probabilities, the next one is not;
# the two are then ranked together. A perfect ranking has AUROC 1 in one batch and 0.75 in two.
# Who meets it: multi-label and one-class models whose logits are passed as they are, above all in small batches.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import torch
import torchmetrics
from torchmetrics.classification import BinaryAUROC

logits, labels = torch.tensor([0.75, 0.9, 0.8, -3.0]), torch.tensor([0, 1, 1, 0])
seen = []
for batch in (4, 2):
    metric = BinaryAUROC()
    for scores, truth in zip(logits.split(batch), labels.split(batch), strict=True):
        metric.update(scores, truth)
    seen.append(metric.compute().item())
print("torchmetrics", torchmetrics.__version__)
print("expected: 1.0 in one batch and in two")
print("seen:", seen)
assert seen == [1.0, 0.75], "the rule has changed"
PYTHON
