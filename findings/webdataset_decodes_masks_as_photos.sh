#!/usr/bin/env bash
# webdataset's decode("pil") turns a palette mask into colours and a 16-bit depth map into white.
#
# Expected: "pil" hands out the image that Pillow reads, as datasets does with the same tar. Seen: every .png goes
# through convert("RGB"), also .seg.png and .depth.png; class numbers become the palette's red, green and blue, and
# every depth above 255 becomes 255.
# Who meets it: segmentation and depth shards; raw bytes (no decode for these keys) and Image.open are the cure.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check webdataset==1.0.2 pillow==13.0.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import io
import tarfile

import numpy
import webdataset
from PIL import Image

mask = Image.new("P", (3, 1))
mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
mask.putdata([0, 1, 2])
depth = Image.fromarray(numpy.array([[0, 300, 40000]], numpy.uint16))
with tarfile.open("shard.tar", "w") as shard:
    for name, image in (("one.seg.png", mask), ("one.depth.png", depth)):
        file = io.BytesIO()
        image.save(file, "PNG")
        entry = tarfile.TarInfo(name)
        entry.size = file.tell()
        file.seek(0)
        shard.addfile(entry, file)
sample = next(iter(webdataset.WebDataset("shard.tar", shardshuffle=False).decode("pil")))
seen = {key: (sample[key].mode, numpy.asarray(sample[key]).tolist()) for key in ("seg.png", "depth.png")}
print("webdataset", webdataset.__version__)
print("expected: seg.png P [[0, 1, 2]], depth.png I;16 [[0, 300, 40000]]")
print("seen:", seen)
assert seen["seg.png"] == ("RGB", [[[0, 0, 0], [128, 0, 0], [0, 128, 0]]]), "masks are decoded in another way"
assert seen["depth.png"] == ("RGB", [[[0] * 3, [255] * 3, [255] * 3]]), "depth is decoded in another way"
PYTHON
