#!/usr/bin/env bash
# Under gradient checkpointing, every training step updates the running statistics of a batch norm twice.
#
# Expected: torch.utils.checkpoint changes time and memory, not what is learned. Seen: the pass that is computed
# again for the gradient moves running_mean and running_var once more, so a momentum of 0.1 acts as 0.19; this holds
# for use_reentrant=True and False. The outputs in evaluation differ from those of the run without checkpointing.
# Who meets it: ResNet, RepLKNet and other models with batch norm that are trained with checkpointing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import copy

import torch
from torch.utils.checkpoint import checkpoint

torch.manual_seed(0)
images = torch.randn(4, 3, 8, 8, requires_grad=True) + 5
plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
models = {"plain": plain, False: copy.deepcopy(plain), True: copy.deepcopy(plain)}
plain(images).sum().backward()
for use_reentrant in (False, True):
    checkpoint(models[use_reentrant], images, use_reentrant=use_reentrant).sum().backward()
steps = {key: int(model[1].num_batches_tracked) for key, model in models.items()}
ratio = (models[False][1].running_mean / plain[1].running_mean).mean().item()
print("torch", torch.__version__)
print("expected: one update a step; the same running mean")
print(f"seen: updates {steps}; running mean {ratio:.2f} times that without checkpointing")
assert steps == {"plain": 1, False: 2, True: 2} and abs(ratio - 1.9) < 0.01, "the updates have changed"
PYTHON
