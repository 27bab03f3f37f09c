#!/usr/bin/env bash
# pillow-heif's lossless quality (-1) still halves the resolution of the colours.
#
# Expected: quality=-1, which the package documents as lossless, gives back every number. Seen: true for grey; colour
# is stored with 4:2:0 chroma, so that red and green columns mix. chroma=444 leaves a difference of 1 from the
# conversion to YCbCr, and only chroma=444 with matrix_coefficients=0 is lossless.
# Who meets it: whoever archives training pictures or colour-coded masks in HEIC or AVIF to save space.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pillow==13.0.0 pillow-heif==1.8.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import io

import numpy
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()
stripes = numpy.zeros((32, 32, 3), numpy.uint8)
stripes[:, ::2, 0], stripes[:, 1::2, 1] = 200, 200


def loss(array, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "HEIF", quality=-1, **options)
    return int(numpy.abs(numpy.asarray(Image.open(file)).astype(int) - array).max())


seen = loss(stripes[..., 0].copy()), loss(stripes), loss(stripes, chroma=444, matrix_coefficients=0)
print("pillow-heif", pillow_heif.__version__)
print("expected: no difference for grey, for colour, and for colour with chroma=444, matrix_coefficients=0")
print("seen, largest difference:", seen)
assert seen[0] == 0 and seen[1] > 50 and seen[2] == 0, "the file is lossless now"
PYTHON
