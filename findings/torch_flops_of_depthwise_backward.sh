#!/usr/bin/env bash
# torch's FlopCounterMode counts the backward pass of a depthwise convolution as if it were a dense one.
#
# Expected: the gradients of input and weight cost as much as the forward pass each, so backward = 2 x forward, with
# any number of groups. Seen: true for one group; with 64 groups of one channel, backward = 65 x forward.
# Who meets it: whoever reports training FLOPs of ConvNeXt, RepLKNet, SMT or MobileNet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import torch
from torch.utils.flop_counter import FlopCounterMode

ratios = {}
for groups in (1, 4, 64):
    convolution = torch.nn.Conv2d(64, 64, 7, padding=3, groups=groups, bias=False)
    images = torch.randn(1, 64, 14, 14, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        output = convolution(images)
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    ratios[groups] = backward.get_total_flops() / forward.get_total_flops()
print("torch", torch.__version__)
print("expected: backward / forward = 2 for 1, 4 and 64 groups")
print("seen:", ratios)
assert ratios == {1: 2.0, 4: 5.0, 64: 65.0}, "the count has changed"
PYTHON
