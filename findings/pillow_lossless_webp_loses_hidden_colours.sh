#!/usr/bin/env bash
# Pillow's lossless WebP is not lossless under a transparent pixel.
#
# Expected: save("x.webp", lossless=True) gives back every number. Seen: RGB does, but in RGBA the colours of all
# pixels of alpha 0 are replaced, unless exact=True is given as well. Readers that drop alpha instead of compositing
# (cv2, transformers' load_image) then show something else than from the PNG.
# Who meets it: cut-outs, four-band pictures and normal maps whose fourth channel is not a transparency.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import io

import numpy
import PIL
from PIL import Image

numbers = numpy.random.default_rng(0).integers(0, 256, (32, 32, 4)).astype(numpy.uint8)
numbers[..., 3] = numpy.where(numbers[..., 3] < 128, 0, 255)


def loss(array, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "WEBP", lossless=True, **options)
    return int(numpy.abs(numpy.asarray(Image.open(file)).astype(int) - array).max())


seen = loss(numbers[..., :3].copy()), loss(numbers), loss(numbers, exact=True)
print("Pillow", PIL.__version__)
print("expected: no difference for RGB, RGBA, and RGBA with exact=True")
print("seen, largest difference:", seen)
assert seen[0] == 0 and seen[1] > 200 and seen[2] == 0, "the file is lossless now"
PYTHON
