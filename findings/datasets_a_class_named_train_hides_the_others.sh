#!/usr/bin/env bash
# load_dataset("imagefolder") of class folders drops every class but the one whose name holds a word like "train".
#
# Expected: folders bus, car and train give three classes. Seen: the folder "train" is taken for a split, which holds
# its pictures alone, without labels, and the other folders are gone without a word. "bullet train", one of
# ImageNet's thousand classes, does the same, and so do "test tube", "validation" and "dev".
# Who meets it: vehicles (VOC, COCO and Cityscapes have a class "train"), laboratory tools, any folder of classes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 pillow==13.0.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import pathlib

import datasets
from PIL import Image

datasets.disable_progress_bars()
seen = {}
for odd in ("train", "bullet train", "test tube", "trainer"):
    for name in ("bus", "car", odd):
        folder = pathlib.Path(odd + " set", name)
        folder.mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (8, 8)).save(folder / f"{index}.png")
    loaded = datasets.load_dataset("imagefolder", data_dir=odd + " set")
    seen[odd] = {split: (rows.num_rows, "label" in rows.features) for split, rows in loaded.items()}
print("datasets", datasets.__version__)
print("expected: {'train': (9, True)} for each, nine pictures with labels")
print("seen:", seen)
lost = {"train": {"train": (3, False)}, "bullet train": {"train": (3, False)}, "test tube": {"test": (3, False)}}
assert seen == {**lost, "trainer": {"train": (9, True)}}, "the folders are read in another way"
PYTHON
