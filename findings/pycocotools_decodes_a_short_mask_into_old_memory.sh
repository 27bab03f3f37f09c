#!/usr/bin/env bash
# A run-length encoded mask whose last run is left out is decoded by pycocotools into whatever the memory held.
#
# Expected: pixels after the last run are background, as in hotcoco, or an error, as in faster-coco-eval. Seen: they are
# the contents of freed memory, values up to 255 where a mask has 0 and 1, while `area` gives the right number.
# Who meets it: training on masks from `annToMask`, with COCO files whose writer ends a mask after its last foreground
# run, since nothing but background follows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  pycocotools==2.0.11 hotcoco==1.3.0 faster-coco-eval==1.8.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata

import faster_coco_eval.core.mask
import hotcoco.mask
import numpy
import pycocotools.mask

# a square of 100 x 100 in an image of 200 x 200, column by column; the 10,050 pixels after it are not said
counts = [50 * 200 + 50, *[100, 100] * 99, 100]
libraries = {
    "pycocotools": pycocotools.mask,
    "hotcoco": hotcoco.mask,
    "faster-coco-eval": faster_coco_eval.core.mask,
}
seen = {}
for name, library in libraries.items():
    encoded = library.frPyObjects({"size": [200, 200], "counts": counts}, 200, 200)
    try:
        values = set()
        for number in range(2, 12):
            used = numpy.full((200, 200), number, numpy.uint8)
            del used  # leaves something in the memory
            values |= set(library.decode(encoded).flatten().tolist())
        seen[name] = int(library.area(encoded)), len(values)
    except ValueError as error:
        seen[name] = f"refused: {error}"
    print(name, importlib.metadata.version(name), "area, distinct values of the pixels:", seen[name])
print("expected: area 10,000 and two values, 0 and 1")
area, values = seen["pycocotools"]
assert area == 10_000 and values > 2, "pycocotools has changed"
assert seen["hotcoco"] == (10_000, 2), "hotcoco has changed"
assert str(seen["faster-coco-eval"]).startswith("refused"), "faster-coco-eval has changed"
PYTHON
