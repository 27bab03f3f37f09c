#!/usr/bin/env bash
# With class weights, F.cross_entropy gives one loss for labels and another for the same labels as one-hot rows.
#
# Expected: a one-hot row says what an index says. Seen: for indices the mean divides by the sum of the weights, for
# rows by the number of samples, so the loss (and the gradient) differs by the mean weight. label_smoothing with
# indices is divided like the former, the same smoothing written out as rows like the latter.
# Who meets it: fine-tuning on unbalanced classes where mixup, cutmix or distillation is switched on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import torch
import torch.nn.functional as F

torch.manual_seed(0)
logits, labels, weight = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([1.0, 5.0, 10.0])
rows = F.one_hot(labels, 3).float()
by_index = F.cross_entropy(logits, labels, weight=weight).item()
by_row = F.cross_entropy(logits, rows, weight=weight).item()
mean_weight = weight[labels].mean().item()
print("torch", torch.__version__)
print(f"expected: the same loss, {by_index:.4f}")
print(f"seen: {by_index:.4f} by index, {by_row:.4f} by row; the mean weight is {mean_weight:.4f}")
assert abs(by_row / by_index - mean_weight) < 1e-4 and mean_weight > 3, "the reduction has changed"
PYTHON
