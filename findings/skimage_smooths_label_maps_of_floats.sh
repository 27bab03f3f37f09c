#!/usr/bin/env bash
# skimage.transform.resize with order=0 invents classes where the label map happens to hold floats.
#
# Expected: order=0 is nearest neighbour, so the result holds the numbers of the input only. Seen: true for integers;
# for the same numbers as float, the default of anti_aliasing puts a Gaussian before the sampling, and the two
# classes 0 and 7 become more than ten.
# Who meets it: masks that passed through float (from .npy or .tif files, or a division) and are made smaller.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check scikit-image==0.26.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import numpy
import skimage
from skimage.transform import resize

mask = numpy.zeros((40, 40))
mask[10:30, 10:30] = 7
found = {
    kind.__name__: numpy.unique(resize(mask.astype(kind), (15, 15), order=0, preserve_range=True))
    for kind in (numpy.uint8, numpy.int64, numpy.float32, numpy.float64)
}
print("skimage", skimage.__version__)
print("expected: values 0 and 7 for each type")
print("seen, number of values:", {kind: len(values) for kind, values in found.items()}, found["float64"][:3])
assert all(found[kind].tolist() == [0, 7] for kind in ("uint8", "int64")), "integers have changed"
assert all(len(found[kind]) > 10 for kind in ("float32", "float64")), "floats are kept now"
PYTHON
