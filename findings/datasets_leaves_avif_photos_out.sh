#!/usr/bin/env bash
# load_dataset("imagefolder") leaves out the AVIF photos of a folder, although Pillow reads them.
#
# Expected: a folder of one class with a JPEG, a WebP and an AVIF file gives three rows. Seen: two. The list of endings
# was made from an older Pillow, so AVIF is no picture for it: no error, no warning, and a training that sees fewer
# photos, or lacks a class whose photos are all AVIF, as web stores and phones of today write them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 pillow==13.0.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import pathlib

import datasets
from PIL import Image, __version__

datasets.disable_progress_bars()
endings = ("jpg", "webp", "avif")
for name in ("bus", "car"):
    pathlib.Path("photos", name).mkdir(parents=True)
for ending in endings:
    Image.new("RGB", (16, 16), "teal").save(f"photos/bus/1.{ending}")
    with Image.open(f"photos/bus/1.{ending}") as photo:
        assert photo.size == (16, 16)
Image.new("RGB", (16, 16), "navy").save("photos/car/1.avif")
rows = datasets.load_dataset("imagefolder", data_dir="photos", split="train")
names = [pathlib.Path(row["image"].filename).name for row in rows]
print("datasets", datasets.__version__, "Pillow", __version__)
print("expected: 4 rows of two classes, since Pillow opens all of them")
print("seen:", sorted(names), rows.features.get("label"))
assert sorted(names) == ["1.jpg", "1.webp"], "AVIF is read now"
PYTHON
