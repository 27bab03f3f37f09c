#!/usr/bin/env bash
# kornia's AugmentationSequential treats the corners of a box as centres of pixels, and the two box formats differ.
#
# Expected: an image of 32 x 32 is enlarged to 64 x 64, so a box [2, 3, 12, 9] becomes [4, 6, 24, 18], in whichever
# format it is given. Seen: corners are scaled by 63 / 31 and flips mirror at 31 instead of 32; given as bbox_xyxy
# the box is 20.32 wide, given as bbox_xywh 19.29, and neither is 20. A flip moves the first by one pixel.
# Who meets it: detection training with kornia; the shift is a pixel of the image, 6 % of the width of a box of 16.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 kornia==0.9.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import kornia
import kornia.augmentation as augmentation
import torch

image, corners, sides = torch.rand(1, 3, 32, 32), [2.0, 3.0, 12.0, 9.0], [2.0, 3.0, 10.0, 6.0]


def through(step):
    results = []
    for key, box in (("bbox_xyxy", corners), ("bbox_xywh", sides)):
        sequence = augmentation.AugmentationSequential(step, data_keys=["input", key])
        results.append([round(number, 2) for number in sequence(image, torch.tensor([[box]]))[1][0, 0].tolist()])
    return results


enlarged, flipped = through(augmentation.Resize((64, 64))), through(augmentation.RandomHorizontalFlip(p=1.0))
print("kornia", kornia.__version__)
print("expected, xyxy and xywh: enlarged [4, 6, 24, 18] and [4, 6, 20, 12], flipped [20, 3, 30, 9] and [20, 3, 10, 6]")
print("seen: enlarged", enlarged, "flipped", flipped)
assert enlarged == [[4.06, 6.1, 24.39, 18.29], [4.06, 6.1, 19.29, 11.16]], "the resizing has changed"
assert flipped == [[19.0, 3.0, 29.0, 9.0], [20.0, 3.0, 10.0, 6.0]], "the flip has changed"
PYTHON
